"""The simulated broker: queues with exactly the promises of `events.bus.Bus`."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from events.bus import Delivery, Message
from events.errors import BrokerUnavailable, UnknownOutcome, Unroutable
from tests.simulation.endings import ACKNOWLEDGE, FREE, PUBLISH, Ending
from tests.simulation.process import Process, current
from tests.simulation.scheduler import Incident, Scheduler


@dataclass(eq=False)
class _QueuedMessage:
    """A copy of a message for one service."""

    type: str
    body: bytes
    redelivered: bool = False


@dataclass(eq=False)
class _Queue:
    service: str
    types: frozenset[str]
    waiting: list[_QueuedMessage] = field(default_factory=list)
    arrived: list[_QueuedMessage] = field(default_factory=list)
    """Every message that ever arrived."""
    dead: list[bytes] = field(default_factory=list)
    subscriptions: list["_Subscription"] = field(default_factory=list)

    def put(self, type_: str, body: bytes) -> None:
        queued = _QueuedMessage(type_, body)
        self.waiting.append(queued)
        self.arrived.append(queued)


class SimulatedBroker:
    """See Bus."""

    def __init__(self, scheduler: Scheduler, bindings: Mapping[str, Collection[str]]) -> None:
        self._scheduler = scheduler
        self._queues = {service: _Queue(service, frozenset(types)) for service, types in bindings.items()}

    async def publish(self, message: Message) -> None:
        """See Bus."""
        await self._put(message, [queue for queue in self._queues.values() if message.type in queue.types])

    async def send(self, service: str, message: Message) -> None:
        """See Bus."""
        await self._put(message, [queue for queue in self._queues.values() if queue.service == service])

    async def backlog(self, service: str) -> int:
        """See Bus."""
        return len(self._queues[service].waiting)

    @asynccontextmanager
    async def subscribe(self, service: str, types: Collection[str]) -> AsyncIterator["_Subscription"]:
        """See Bus."""
        queue = self._queues[service]
        assert queue.types == frozenset(types)
        subscription = _Subscription(self._scheduler, queue, current())
        queue.subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            subscription.disconnect()
            if subscription in queue.subscriptions:
                queue.subscriptions.remove(subscription)

    @property
    def is_idle(self) -> bool:
        """Whether no message waits and no consumer holds one."""
        return not any(
            queue.waiting or any(subscription.taken for subscription in queue.subscriptions)
            for queue in self._queues.values()
        )

    @property
    def undecodable(self) -> list[bytes]:
        """The bodies that could not be decoded."""
        return [body for queue in self._queues.values() for body in queue.dead]

    def put(self, service: str, type_: str, body: bytes) -> None:
        """Queues a message that no service has published."""
        self._queues[service].put(type_, body)

    def release(self, process: Process) -> None:
        """Returns the messages of a process that has died to their queues."""
        for queue in self._queues.values():
            for subscription in list(queue.subscriptions):
                if subscription.process is process:
                    subscription.disconnect()
                    queue.subscriptions.remove(subscription)

    def incidents(self) -> list[Incident]:
        """Incidents in the broker."""
        return [
            Incident(
                "a message comes twice",
                0.03,
                lambda: any(q.arrived for q in self._queues.values()),
                self._double,
            ),
            Incident("a connection is lost", 0.02, lambda: True, self._disconnect),
            Incident("a queue is shuffled", 0.03, lambda: True, self._shuffle),
        ]

    def _double(self) -> str:
        queue = self._scheduler.random.choice([q for q in self._queues.values() if q.arrived])
        queued = self._scheduler.random.choice(queue.arrived)
        queue.waiting.append(_QueuedMessage(queued.type, queued.body))
        return f"a {queued.type} comes to {queue.service} again"

    def _disconnect(self) -> str:
        queue = self._scheduler.random.choice(list(self._queues.values()))
        for subscription in queue.subscriptions:
            subscription.disconnect()
        return f"{queue.service} loses its connection to the broker"

    def _shuffle(self) -> str:
        queue = self._scheduler.random.choice(list(self._queues.values()))
        self._scheduler.random.shuffle(queue.waiting)
        return f"the messages for {queue.service} are shuffled"

    async def _put(self, message: Message, bound: Sequence[_Queue]) -> None:
        async with self._scheduler.step(f"publish {message.type}", PUBLISH) as step:
            if step.ending is Ending.REFUSED:
                raise BrokerUnavailable
            if not bound:
                raise Unroutable
            if step.ending is not Ending.LOST:
                for queue in bound:
                    queue.put(message.type, message.body)
            if step.ending in (Ending.LOST, Ending.ANSWER_LOST):
                raise UnknownOutcome("The broker did not confirm the message in time.")


class _Subscription:
    """One consumer of a queue."""

    def __init__(self, scheduler: Scheduler, queue: _Queue, process: Process | None) -> None:
        self.process = process
        self.taken: list[_QueuedMessage] = []
        self._scheduler = scheduler
        self._queue = queue

    async def take(self, limit: int) -> Sequence[Delivery]:
        """Takes a random number of the waiting messages."""
        async with self._scheduler.step("take", FREE, ready=lambda: bool(self._queue.waiting)) as step:
            count = self._scheduler.random.randint(1, min(limit, len(self._queue.waiting)))
            messages, self._queue.waiting[:count] = self._queue.waiting[:count], []
            self.taken += messages
            step.notes += [queued.type + (" again" if queued.redelivered else "") for queued in messages]
            return [Delivery(queued.body, queued.redelivered, queued) for queued in messages]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledges; a message that was redelivered meanwhile is delivered again all the same."""
        async with self._scheduler.step("acknowledge", ACKNOWLEDGE) as step:
            if step.ending is Ending.LOST:
                self.disconnect()
            for delivery in deliveries:
                if delivery.tag in self.taken:
                    self.taken.remove(delivery.tag)

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Returns the messages to the queue."""
        self._requeue([delivery.tag for delivery in deliveries])

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """Dead-letters a message, at least once."""
        async with self._scheduler.step("dead-letter", ACKNOWLEDGE) as step:
            self._queue.dead.append(delivery.body)
            if step.ending is Ending.LOST:
                self.disconnect()
            elif delivery.tag in self.taken:
                self.taken.remove(delivery.tag)

    def disconnect(self) -> None:
        """Returns the unacknowledged messages to the queue."""
        self._requeue(list(self.taken))

    def _requeue(self, messages: Sequence[object]) -> None:
        back = [queued for queued in self.taken if queued in messages]
        for queued in back:
            queued.redelivered = True
            self.taken.remove(queued)
        self._queue.waiting[:0] = back
