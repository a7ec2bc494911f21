"""The simulated broker: queues that outlive every process, as `events.bus.Bus` promises them, and no more."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from events.bus import Delivery, Message
from events.errors import BrokerUnavailable, UnknownOutcome, Unroutable
from tests.simulation.fates import ACKNOWLEDGE, FREE, PUBLISH, Fate
from tests.simulation.process import Process, current
from tests.simulation.scheduler import Act, Scheduler


@dataclass(eq=False)
class _Letter:
    """One copy of a message, for one service."""

    type: str
    body: bytes
    redelivered: bool = False


@dataclass(eq=False)
class _Queue:
    service: str
    types: frozenset[str]
    waiting: list[_Letter] = field(default_factory=list)
    arrived: list[_Letter] = field(default_factory=list)
    """Every letter that ever came."""
    dead: list[bytes] = field(default_factory=list)
    subscriptions: list["_Subscription"] = field(default_factory=list)

    def put(self, type_: str, body: bytes) -> None:
        letter = _Letter(type_, body)
        self.waiting.append(letter)
        self.arrived.append(letter)


class SimulatedBroker:
    """Keeps the promises of `events.bus.Bus`."""

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
    def at_rest(self) -> bool:
        """Whether nothing waits, and nobody has anything."""
        return not any(
            queue.waiting or any(subscription.taken for subscription in queue.subscriptions)
            for queue in self._queues.values()
        )

    @property
    def buried(self) -> list[bytes]:
        """What could not be decoded."""
        return [body for queue in self._queues.values() for body in queue.dead]

    def put(self, service: str, type_: str, body: bytes) -> None:
        """A stranger sends something."""
        self._queues[service].put(type_, body)

    def left_by(self, process: Process) -> None:
        """The process is gone: what it had comes again."""
        for queue in self._queues.values():
            for subscription in list(queue.subscriptions):
                if subscription.process is process:
                    subscription.disconnect()
                    queue.subscriptions.remove(subscription)

    def acts(self) -> list[Act]:
        """What happens in a broker."""
        return [
            Act(
                "a letter comes twice",
                0.03,
                lambda: any(q.arrived for q in self._queues.values()),
                self._double,
            ),
            Act("a connection is lost", 0.02, lambda: True, self._disconnect),
            Act("a queue is shuffled", 0.03, lambda: True, self._shuffle),
        ]

    def _has_had_letters(self) -> bool:
        return any(queue.arrived for queue in self._queues.values())

    def _double(self) -> str:
        queue = self._scheduler.random.choice([q for q in self._queues.values() if q.arrived])
        letter = self._scheduler.random.choice(queue.arrived)
        queue.waiting.append(_Letter(letter.type, letter.body))
        return f"a {letter.type} comes to {queue.service} once more"

    def _disconnect(self) -> str:
        queue = self._scheduler.random.choice(list(self._queues.values()))
        for subscription in queue.subscriptions:
            subscription.disconnect()
        return f"{queue.service} loses its connection to the broker"

    def _shuffle(self) -> str:
        queue = self._scheduler.random.choice(list(self._queues.values()))
        self._scheduler.random.shuffle(queue.waiting)
        return f"the letters for {queue.service} are shuffled"

    async def _put(self, message: Message, bound: Sequence[_Queue]) -> None:
        async with self._scheduler.step(f"publish {message.type}", PUBLISH) as step:
            if step.fate is Fate.REFUSED:
                raise BrokerUnavailable
            if not bound:
                raise Unroutable
            if step.fate is not Fate.LOST:
                for queue in bound:
                    queue.put(message.type, message.body)
            if step.fate in (Fate.LOST, Fate.ANSWER_LOST):
                raise UnknownOutcome("The broker did not confirm the message in time.")


class _Subscription:
    """One consumer's share of a queue."""

    def __init__(self, scheduler: Scheduler, queue: _Queue, process: Process | None) -> None:
        self.process = process
        self.taken: list[_Letter] = []
        self._scheduler = scheduler
        self._queue = queue

    async def take(self, limit: int) -> Sequence[Delivery]:
        """Some of what waits: more may be on its way."""
        async with self._scheduler.step("take", FREE, ready=lambda: bool(self._queue.waiting)) as step:
            count = self._scheduler.random.randint(1, min(limit, len(self._queue.waiting)))
            letters, self._queue.waiting[:count] = self._queue.waiting[:count], []
            self.taken += letters
            step.notes += [letter.type + (" again" if letter.redelivered else "") for letter in letters]
            return [Delivery(letter.body, letter.redelivered, letter) for letter in letters]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """What was lost meanwhile comes again all the same."""
        async with self._scheduler.step("acknowledge", ACKNOWLEDGE) as step:
            if step.fate is Fate.LOST:
                self.disconnect()
            for delivery in deliveries:
                if delivery.tag in self.taken:
                    self.taken.remove(delivery.tag)

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """They come again."""
        self._come_again([delivery.tag for delivery in deliveries])

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """At least once."""
        async with self._scheduler.step("dead-letter", ACKNOWLEDGE) as step:
            self._queue.dead.append(delivery.body)
            if step.fate is Fate.LOST:
                self.disconnect()
            elif delivery.tag in self.taken:
                self.taken.remove(delivery.tag)

    def disconnect(self) -> None:
        """What was taken and not acknowledged is for anybody to take."""
        self._come_again(list(self.taken))

    def _come_again(self, letters: Sequence[object]) -> None:
        back = [letter for letter in self.taken if letter in letters]
        for letter in back:
            letter.redelivered = True
            self.taken.remove(letter)
        self._queue.waiting[:0] = back
