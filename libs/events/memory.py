"""The memory transport: the bus of a system whose services all live in one process.

A confirm means that every service bound to the type has committed the message's events (handled or parked),
so an outbox row is marked as published only then, and nothing is lost when the process dies: what it had not
committed everywhere is still in the outbox, and is published again by the next process.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from uuid_utils.compat import uuid7

from events.bus import Delivery, Message
from events.errors import BrokerUnavailable, Unroutable


@dataclass(eq=False, slots=True)
class _Letter:
    """One message for one service."""

    message: Message
    redelivered: bool
    done: "asyncio.Future[None]"


@dataclass(eq=False, slots=True)
class _Queue:
    """What waits for one service."""

    types: frozenset[str]
    letters: deque[_Letter] = field(default_factory=deque)
    pending: dict[UUID, _Letter] = field(default_factory=dict)
    """Every letter that is not acknowledged yet, waiting or taken, by its message's id."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    dead: list[tuple[bytes, str]] = field(default_factory=list)


class MemoryBus:
    """Carries messages between the services of one process. Keeps the promises of `events.bus.Bus`.

    `bindings` names the types that each service listens to. A message made before this bus was, by a process
    that ended before everybody had committed it, counts as redelivered.
    """

    def __init__(self, bindings: Mapping[str, Collection[str]]) -> None:
        self._queues = {service: _Queue(frozenset(types)) for service, types in bindings.items()}
        self._first_id = uuid7()
        self._closed = False

    def close(self) -> None:
        """The process ends: nobody waits for confirms any more, the next process publishes again."""
        self._closed = True
        for queue in self._queues.values():
            for letter in queue.pending.values():
                if not letter.done.done():
                    letter.done.set_exception(BrokerUnavailable())
                    letter.done.exception()  # perhaps nobody waits for it any more, and that is no news

    @property
    def dead(self) -> dict[str, Sequence[tuple[bytes, str]]]:
        """What could not be decoded, with its reason, by service. The outbox has it too."""
        return {service: tuple(queue.dead) for service, queue in self._queues.items()}

    async def publish(self, message: Message) -> None:
        """Returns when every bound service has committed the message."""
        bound = [queue for queue in self._queues.values() if message.type in queue.types]
        if not bound:
            raise Unroutable
        if self._closed:
            raise BrokerUnavailable
        await asyncio.gather(*(self._put(queue, message) for queue in bound))

    async def send(self, service: str, message: Message) -> None:
        """Returns when the service has committed the message; one that it has not finished is not doubled."""
        queue = self._queue(service)
        if self._closed:
            raise BrokerUnavailable
        await self._put(queue, message)

    async def backlog(self, service: str) -> int:
        """How many messages nobody has taken yet."""
        return len(self._queue(service).letters)

    @asynccontextmanager
    async def subscribe(self, service: str, types: Collection[str]) -> AsyncIterator["_Subscription"]:
        """The service's share of its messages; several subscriptions of one service share them."""
        queue = self._queues[service]
        assert queue.types == frozenset(types), f"{service} is bound to {sorted(queue.types)}"
        subscription = _Subscription(queue)
        try:
            yield subscription
        finally:
            await subscription.give_back(subscription.taken)

    def _queue(self, service: str) -> _Queue:
        if service not in self._queues:
            raise Unroutable
        return self._queues[service]

    async def _put(self, queue: _Queue, message: Message) -> None:
        letter = queue.pending.get(message.id)
        if letter is None:
            done = asyncio.get_running_loop().create_future()
            letter = _Letter(message, message.id < self._first_id, done)
            queue.pending[message.id] = letter
            queue.letters.append(letter)
            queue.arrived.set()
        await asyncio.shield(letter.done)


class _Subscription:
    """One consumer's share of a queue."""

    def __init__(self, queue: _Queue) -> None:
        self._queue = queue
        self._taken: dict[UUID, Delivery] = {}

    @property
    def taken(self) -> Sequence[Delivery]:
        return list(self._taken.values())

    async def take(self, limit: int) -> Sequence[Delivery]:
        while not self._queue.letters:
            self._queue.arrived.clear()
            await self._queue.arrived.wait()
        deliveries: list[Delivery] = []
        while self._queue.letters and len(deliveries) < limit:
            letter = self._queue.letters.popleft()
            delivery = Delivery(letter.message.body, letter.redelivered, letter)
            self._taken[letter.message.id] = delivery
            deliveries.append(delivery)
        return deliveries

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        for letter in map(self._letter, deliveries):
            del self._taken[letter.message.id]
            del self._queue.pending[letter.message.id]
            if not letter.done.done():
                letter.done.set_result(None)

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        for letter in reversed([self._letter(delivery) for delivery in deliveries]):
            del self._taken[letter.message.id]
            letter.redelivered = True
            self._queue.letters.appendleft(letter)
        self._queue.arrived.set()

    async def bury(self, delivery: Delivery, reason: str) -> None:
        self._queue.dead.append((delivery.body, reason))
        await self.acknowledge([delivery])

    def _letter(self, delivery: Delivery) -> _Letter:
        assert isinstance(delivery.tag, _Letter)
        return delivery.tag
