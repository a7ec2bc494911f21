"""The memory transport: the bus of a system whose services all run in one process.

`publish` returns when every service that is bound to the type has committed the message's events. So an
outbox row is marked as published only then, and nothing is lost when the process dies: the next process
publishes the row again.

A service that does not keep up delays only itself: publishing is postponed for it, while the others get the
message.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from events.bus import Delivery, Message
from events.errors import BrokerUnavailable, Postponed, Unroutable

MAX_PENDING: Final = 1000
"""Most unacknowledged messages of one service."""
LAG_SECONDS: Final = 1.0
"""A service that takes longer to commit a message does not keep up."""
REMEMBERED: Final = 20_000
"""Most messages whose commits are remembered per service. A forgotten one is delivered again."""
DEAD: Final = 1000
"""Most undecodable messages that are kept per service; the outbox has them all."""


class ListenerBehind(Postponed):
    """A service does not keep up: it has not committed this message, or earlier ones, in time."""


@dataclass(eq=False, slots=True)
class _Queued:
    """One message for one service."""

    message: Message
    redelivered: bool
    since: float
    """The loop's time."""
    done: "asyncio.Future[None]"


@dataclass(eq=False, slots=True)
class _Queue:
    """The queue of one service."""

    service: str
    types: frozenset[str]
    waiting: deque[_Queued] = field(default_factory=deque)
    pending: dict[UUID, _Queued] = field(default_factory=dict)
    """Every unacknowledged message, waiting or taken, by its id; the oldest first."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    dead: deque[tuple[bytes, str]] = field(default_factory=lambda: deque(maxlen=DEAD))

    def lags(self, now: float, seconds: float) -> bool:
        """Whether a message has waited for longer than `seconds`."""
        oldest = next(iter(self.pending.values()), None)
        return oldest is not None and now - oldest.since > seconds


class MemoryBus:
    """Carries messages between the services of one process. Keeps the promises of `events.bus.Bus`.

    `bindings` names the types that each service listens to. A message that is older than this bus counts as
    redelivered: an earlier process may have died of it.
    """

    def __init__(self, bindings: Mapping[str, Collection[str]], *, lag_seconds: float = LAG_SECONDS) -> None:
        self._queues = {service: _Queue(service, frozenset(types)) for service, types in bindings.items()}
        self._first_id = uuid7()
        self._lag_seconds = lag_seconds
        self._committed: dict[UUID, set[str]] = {}
        """The services that have committed each message that is not fully published."""
        self._closed = False

    def close(self) -> None:
        """Ends every wait in `publish` and `send`. The next process publishes those messages again."""
        self._closed = True
        for queue in self._queues.values():
            for queued in queue.pending.values():
                if not queued.done.done():
                    queued.done.set_exception(BrokerUnavailable())
                    queued.done.exception()  # retrieved, so that asyncio does not log it

    @property
    def dead(self) -> dict[str, Sequence[tuple[bytes, str]]]:
        """Undecodable messages with their reasons, by service."""
        return {service: tuple(queue.dead) for service, queue in self._queues.items()}

    async def publish(self, message: Message) -> None:
        """Returns when every bound service has committed the message.

        Raises ListenerBehind when a service does not keep up. The others get the message, and publishing it
        again reaches only the services that have not committed it.
        """
        bound = [queue for queue in self._queues.values() if message.type in queue.types]
        if not bound:
            raise Unroutable
        committed = self._committed.setdefault(message.id, set())
        if len(self._committed) > REMEMBERED:
            del self._committed[next(iter(self._committed))]
        await self._deliver([queue for queue in bound if queue.service not in committed], message)
        self._committed.pop(message.id, None)

    async def send(self, service: str, message: Message) -> None:
        """Returns when the service has committed the message. One that is queued already is not queued twice.

        Raises ListenerBehind when the service does not keep up.
        """
        await self._deliver([self._queue(service)], message)

    async def backlog(self, service: str) -> int:
        """How many messages are not taken yet."""
        return len(self._queue(service).waiting)

    @asynccontextmanager
    async def subscribe(self, service: str, types: Collection[str]) -> AsyncIterator["_Subscription"]:
        """Subscribes a service. Several subscriptions of one service share its messages."""
        queue = self._queues[service]
        assert queue.types == frozenset(types), f"{service} is bound to {sorted(queue.types)}"
        subscription = _Subscription(queue, self._committed)
        try:
            yield subscription
        finally:
            await subscription.give_back(subscription.taken)

    def _queue(self, service: str) -> _Queue:
        if service not in self._queues:
            raise Unroutable
        return self._queues[service]

    async def _deliver(self, queues: Sequence[_Queue], message: Message) -> None:
        """Returns when each of these services has committed the message. Raises ListenerBehind."""
        if self._closed:
            raise BrokerUnavailable
        now = asyncio.get_running_loop().time()
        copies = [self._put(queue, message, now) for queue in queues]
        behind = [queue for queue in queues if queue.lags(now, self._lag_seconds)]
        confirms = [queued.done for queued in copies if queued]
        if confirms and not behind and len(confirms) == len(copies):
            await asyncio.wait(confirms, timeout=self._lag_seconds)
        for confirm in confirms:
            if confirm.done():
                confirm.result()
        if not all(queued and queued.done.done() for queued in copies):
            raise ListenerBehind

    def _put(self, queue: _Queue, message: Message, now: float) -> _Queued | None:
        """Queues the message unless it is queued already. Returns None if the queue is full."""
        queued = queue.pending.get(message.id)
        if queued is None and len(queue.pending) < MAX_PENDING:
            done = asyncio.get_running_loop().create_future()
            queued = _Queued(message, message.id < self._first_id, now, done)
            queue.pending[message.id] = queued
            queue.waiting.append(queued)
            queue.arrived.set()
        return queued


class _Subscription:
    """One consumer of a queue."""

    def __init__(self, queue: _Queue, committed: Mapping[UUID, set[str]]) -> None:
        self._queue = queue
        self._committed = committed
        self._taken: dict[UUID, Delivery] = {}

    @property
    def taken(self) -> Sequence[Delivery]:
        return list(self._taken.values())

    async def take(self, limit: int) -> Sequence[Delivery]:
        while not self._queue.waiting:
            self._queue.arrived.clear()
            await self._queue.arrived.wait()
        deliveries: list[Delivery] = []
        while self._queue.waiting and len(deliveries) < limit:
            queued = self._queue.waiting.popleft()
            delivery = Delivery(queued.message.body, queued.redelivered, queued)
            self._taken[queued.message.id] = delivery
            deliveries.append(delivery)
        return deliveries

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        for queued in map(self._queued, deliveries):
            del self._taken[queued.message.id]
            del self._queue.pending[queued.message.id]
            if queued.message.id in self._committed:
                self._committed[queued.message.id].add(self._queue.service)
            if not queued.done.done():
                queued.done.set_result(None)

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        for queued in reversed([self._queued(delivery) for delivery in deliveries]):
            del self._taken[queued.message.id]
            queued.redelivered = True
            self._queue.waiting.appendleft(queued)
        self._queue.arrived.set()

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        self._queue.dead.append((delivery.body, reason))
        await self.acknowledge([delivery])

    def _queued(self, delivery: Delivery) -> _Queued:
        assert isinstance(delivery.tag, _Queued)
        return delivery.tag
