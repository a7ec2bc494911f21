"""The worker: takes deliveries from a subscription, handles them in one transaction, and acknowledges."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias
from uuid import UUID

from events import envelope, inbox, parked
from events.backoff import backoff
from events.bus import Bus, Delivery, Subscription
from events.contracts import AnyEvent, type_of
from events.envelope import Rejected
from events.errors import Reject, Unavailable, Undecodable
from events.killpoints import KillPoint, reach
from events.parked import ParkedEvent
from events.runner import Runner
from events.splitting import BatchFailures, NeverCommits, commit_in_halves
from events.text import storable
from events.transaction import Transaction
from events.transactions import Transactions

Handler: TypeAlias = Callable[[Sequence[Any], Transaction], Awaitable[None]]
Handlers: TypeAlias = Mapping[type[AnyEvent], Handler]
"""The handler of each event type that a service listens to: a table at the end of its `handlers.py`.

A handler gets a batch of new events of its types, and a transaction. It changes nothing but through the
transaction, because it is called again for the same events if the commit fails. It raises Reject for an event
that can never be handled; after any other exception the event is tried again later.
"""
Received: TypeAlias = AnyEvent | Rejected

MAX_MESSAGES: Final = 32
"""Most messages in one transaction."""
MANY_EVENTS: Final = 8
"""A transaction with so many events shows that the load is high."""
GATHER_SECONDS: Final = 0.1
"""Least time from the start of such a transaction to the next: fewer, larger commits cost less."""
MAX_DEATHS: Final = 2
"""An event is parked as dead after so many deaths of the process while it was handled alone."""

logger = logging.getLogger(__name__)


class KillsProcess(Reject):
    """The event was begun repeatedly and never finished: it seems to kill the process."""


class Worker:
    """Consumes the events of one service's handler table.

    A message is acknowledged after the commits in which its events were handled or parked. While the
    database is away the batch is repeated without being counted. A batch that fails repeatedly although the
    database answers is split, and the events that fail alone are parked.
    """

    def __init__(
        self,
        service: str,
        handlers: Handlers,
        transactions: Transactions,
        bus: Bus,
        runners: Collection[Runner[Any, Any]] = (),
    ) -> None:
        self.service = service
        self._handlers = {type_of(event): handler for event, handler in handlers.items()}
        self._transactions = transactions
        self._bus = bus
        self._runners = runners
        self._attempts = inbox.Attempts()
        self._digests: dict[UUID, int] = {}
        """The digests of the events of the current batch, as far as they are known."""
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Works until `stop`. Then the current batch is finished, and other deliveries are given back."""
        async with self._bus.subscribe(self.service, self._handlers.keys()) as subscription:
            await self.consume(subscription, holds_back=True)

    async def consume(self, subscription: Subscription, *, holds_back: bool) -> None:
        """Works until `stop` or the subscription's end. It may be called again.

        With `holds_back` nothing is taken while a runner has no room, nor right after a transaction with many
        events, so that more events gather. Without it, intents that find no room wait in their table.
        """
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            while not self._stopping.is_set():
                taken = asyncio.create_task(self._take(subscription, holds_back))
                try:
                    await asyncio.wait({taken, stopped}, return_when=asyncio.FIRST_COMPLETED)
                    if taken.done():
                        if not taken.result():
                            break
                        next_at = asyncio.get_running_loop().time() + GATHER_SECONDS
                        events = await self._process(subscription, taken.result())
                        if holds_back and events >= MANY_EVENTS:
                            await self._pause(next_at - asyncio.get_running_loop().time())
                finally:
                    taken.cancel()
        finally:
            stopped.cancel()
            self._stopping.clear()

    def stop(self) -> None:
        """Asks `run` to end."""
        self._stopping.set()

    async def retry(self, waiting: ParkedEvent) -> None:
        """Handles a parked event again. It is removed, deferred or marked dead."""
        try:
            [item] = self._read(b"[" + waiting.body + b"]")
            if isinstance(item, Rejected):
                if item.for_newer_version:
                    async with self._transactions() as tx:
                        await parked.defer_to_newer_version(tx, waiting, item)
                    return
                raise Reject(item.message)
            async with self._attempts.lock():
                await self._begin(waiting.id)
                await self._retry_until_to_blame(waiting, item)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001  # the reason for parking it again
            async with self._transactions() as tx:
                await parked.park_again(tx, waiting, error)
                await self._attempts.finish(tx, [waiting.id])
        self._attempts.forget([waiting.id])

    async def _retry_until_to_blame(self, waiting: ParkedEvent, item: AnyEvent) -> None:
        """Raises Unavailable while the database is away, NeverCommits if the event is to blame."""
        suspicion = BatchFailures(self._transactions.ping)
        while True:
            try:
                async with self._transactions() as tx:
                    if await parked.take(tx, waiting):
                        await self._handle([item], tx)
                    await self._attempts.finish(tx, [waiting.id])
            except Unavailable as error:
                if await suspicion.blames_batch(error):
                    raise NeverCommits(error) from error
                if not suspicion.failures or self._stopping.is_set():
                    raise
                await self._pause(backoff(suspicion.failures, first=0.1))
            else:
                return

    async def _take(self, subscription: Subscription, holds_back: bool) -> Sequence[Delivery]:
        """Takes as many deliveries as the runners surely have room for, but at least one."""
        limit = MAX_MESSAGES
        for runner in self._runners if holds_back else ():
            await runner.wait_for_room()
            limit = max(1, min(limit, runner.room // envelope.MAX_EVENTS))
        return await subscription.take(limit)

    async def _process(self, subscription: Subscription, deliveries: Sequence[Delivery]) -> int:
        """Handles and acknowledges the deliveries, and returns the number of their events."""
        self._digests.clear()
        fresh: list[Received] = []
        redelivered: list[Received] = []
        readable: list[Delivery] = []
        for delivery in deliveries:
            try:
                items = self._read(delivery.body)
            except Undecodable as error:
                logger.warning("%s: a message goes to the dead-letter queue: %s", self.service, error)
                await subscription.dead_letter(delivery, str(error))
            else:
                readable.append(delivery)
                self._remember_digests(delivery.body, items)
                (redelivered if delivery.redelivered else fresh).extend(items)
        try:
            if fresh:
                await self._commit(fresh)
            if redelivered:
                await self._process_redelivered(redelivered)
        except Unavailable:  # only when stopping
            await subscription.give_back(readable)
        else:
            reach(KillPoint.ACKNOWLEDGING)
            await subscription.acknowledge(readable)
            reach(KillPoint.ACKNOWLEDGED)
        return len(fresh) + len(redelivered)

    def _read(self, body: bytes) -> list[Received]:
        events, rejected = envelope.decode(body)
        items: list[Received] = [*rejected]
        for event in events:
            if type_of(type(event)) in self._handlers:
                items.append(event)
            else:
                items.append(envelope.rejected_without_handler(event, self.service))
        return items

    def _remember_digests(self, body: bytes, items: Sequence[Received]) -> None:
        """Remembers the events' digests, unless an event of the message was rejected."""
        if any(isinstance(item, Rejected) for item in items):
            return
        for item, digest in zip(items, envelope.digests(body), strict=True):
            if self._digests.setdefault(item.id, digest) != digest:
                self._warn_of_payloads([item])

    def _warn_of_payloads(self, items: Iterable[Received]) -> None:
        for item in items:
            source = "an unknown sender" if isinstance(item, Rejected) else storable(item.source, 100)
            logger.warning(
                "%s: event %s came again with another payload, from %s: the first one counts",
                *(self.service, item.id, source),
            )

    async def _when_available(self, work: Callable[[], Awaitable[object]]) -> None:
        """Repeats the work while the database is unavailable. Raises Unavailable only when stopping."""
        tries = 0
        while True:
            try:
                await work()
            except Unavailable as error:
                if self._stopping.is_set():
                    raise
                if not tries:
                    logger.warning("%s: the batch is repeated until it commits: %s", self.service, error)
                await self._pause(backoff(tries, first=0.1, most=5.0))
                tries += 1
            else:
                if tries:
                    logger.info("%s: the batch was committed after %d repeats", self.service, tries)
                return

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    # Batches

    async def _commit(self, items: Sequence[Received]) -> None:
        """Handles or parks each item. Raises Unavailable only when stopping."""
        suspicion = BatchFailures(self._transactions.ping)
        await self._when_available(
            lambda: commit_in_halves(items, self._commit_together, self._park, suspicion.blames_batch)
        )

    async def _commit_together(self, items: Sequence[Received]) -> Sequence[None]:
        by_id: dict[UUID, Received] = {}
        for item in items:
            by_id.setdefault(item.id, item)

        async def handle_new(tx: Transaction) -> set[UUID]:
            new = await inbox.register(tx, by_id.keys(), self._digests)
            await self._handle([by_id[item_id] for item_id in by_id if item_id in new], tx)
            await self._attempts.finish(tx, by_id)
            return await self._differing(tx, by_id.keys() - new)

        differing = await self._transactions.run(handle_new)
        self._attempts.forget(by_id)
        self._warn_of_payloads(by_id[item_id] for item_id in differing)
        return [None] * len(items)

    async def _differing(self, tx: Transaction, taken_over: Collection[UUID]) -> set[UUID]:
        """The events that were taken over before with another payload."""
        digests = {item_id: self._digests[item_id] for item_id in taken_over if item_id in self._digests}
        return await inbox.with_other_payload(tx, digests) if digests else set()

    async def _handle(self, items: Sequence[Received], tx: Transaction) -> None:
        rejected: list[Rejected] = []
        by_handler: dict[Handler, list[AnyEvent]] = {}
        for item in items:
            if isinstance(item, Rejected):
                rejected.append(item)
            else:
                by_handler.setdefault(self._handlers[type_of(type(item))], []).append(item)
        for handle, events in by_handler.items():
            await handle(events, tx)
        if rejected:
            await parked.park_rejected(tx, rejected)

    async def _park(self, item: Received, error: Exception) -> None:
        logger.error("%s: event %s parked: %r", self.service, item.id, error, exc_info=error)
        async with self._transactions() as tx:
            if await inbox.register(tx, [item.id], self._digests):
                if isinstance(item, Rejected):
                    await parked.park_rejected(tx, [item])
                else:
                    await parked.park(tx, item, error)
            await self._attempts.finish(tx, [item.id])
        self._attempts.forget([item.id])

    # Events of redelivered messages: they were delivered before and not acknowledged

    async def _process_redelivered(self, items: Sequence[Received]) -> None:
        """Handles events without a recorded attempt in one batch, the others alone. See `inbox.Attempts`."""
        by_id: dict[UUID, Received] = {}
        for item in items:
            by_id.setdefault(item.id, item)
        async with self._attempts.lock():
            in_inbox, in_one_batch = await self._begin_together(by_id)
            if in_one_batch:
                await self._commit([by_id[item_id] for item_id in by_id if item_id in in_one_batch])
        for item_id, item in by_id.items():
            if item_id not in in_inbox and item_id not in in_one_batch:
                await self._process_alone(item)

    async def _begin_together(self, by_id: Mapping[UUID, Received]) -> tuple[set[UUID], set[UUID]]:
        """Returns the events that are in the inbox, and those that may go in one batch."""
        in_inbox: set[UUID] = set()
        in_one_batch: set[UUID] = set()
        differing: set[UUID] = set()

        async def begin() -> None:
            async with self._transactions() as tx:
                in_inbox.update(await inbox.already_registered(tx, by_id.keys()))
                differing.update(await self._differing(tx, in_inbox))
                in_one_batch.update(await self._attempts.begin_together(tx, by_id.keys() - in_inbox))

        await self._when_available(begin)
        self._warn_of_payloads(by_id[item_id] for item_id in differing)
        return in_inbox, in_one_batch

    async def _process_alone(self, item: Received) -> None:
        async with self._attempts.lock():
            try:
                await self._when_available(partial(self._begin, item.id))
            except KillsProcess as error:
                await self._when_available(partial(self._park, item, error))
            else:
                await self._commit([item])

    async def _begin(self, event_id: UUID) -> None:
        async with self._transactions() as tx:
            attempt = await self._attempts.begin(tx, event_id)
        if attempt > MAX_DEATHS:
            raise KillsProcess
