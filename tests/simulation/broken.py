"""Systems that are wrong on purpose: each is the real one but for one classic mistake.

A checker counts only when it was seen to fail. `VARIANTS` names for every mistake the invariant that must
catch it.
The one that needs a real broker, a consumer that is not started again, is in
`tests.conformance.test_broken_consumer`.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final
from unittest.mock import patch
from uuid import UUID, uuid4

import msgspec

from events import inbox, parked, statements, transaction
from events.bus import Delivery, Message, Subscription
from events.connection import answer_of
from events.contracts import Order
from events.errors import EventsError, UnknownOutcome
from events.transaction import Transaction
from events.worker import Item, Worker
from services.billing import work
from services.billing.domain import Payment
from services.billing.provider import ChargeRequest
from services.invoice import repository as invoices
from services.invoice.domain import Invoice, Number
from tests.simulation.broker import SimulatedBroker
from tests.simulation.database import SteppedTransactions
from tests.simulation.fates import Fate


@contextmanager
def acknowledged_before_the_commit() -> Iterator[None]:
    """What was taken is acknowledged first and handled then."""
    process = Worker._process

    async def process_acknowledged(
        self: Worker, subscription: Subscription, deliveries: Sequence[Delivery]
    ) -> int:
        await subscription.acknowledge(deliveries)
        return await process(self, subscription, deliveries)

    with patch.object(Worker, "_process", process_acknowledged):
        yield


@contextmanager
def without_an_inbox() -> Iterator[None]:
    """Nobody writes down what was handled: everything is always new."""

    async def register(_: Transaction, event_ids: Collection[UUID], digests: Mapping[UUID, int]) -> set[UUID]:
        return set(event_ids)

    async def known(_: Transaction, event_ids: Collection[UUID]) -> set[UUID]:
        return set()

    with patch.object(inbox, "register", register), patch.object(inbox, "already_registered", known):
        yield


@contextmanager
def announced_after_the_commit() -> Iterator[None]:
    """The outbox is written in a transaction of its own, once the fact is committed."""
    original = SteppedTransactions.__call__

    @asynccontextmanager
    async def announcing_later(
        self: SteppedTransactions, *, optimistic: bool = False
    ) -> AsyncIterator[Transaction]:
        async with original(self, optimistic=optimistic) as tx:
            yield tx
            announced, tx.events = tx.events, []
        if announced:
            async with original(self) as tx:
                tx.emit(*announced)

    with patch.object(SteppedTransactions, "__call__", announcing_later):
        yield


@contextmanager
def marked_before_the_confirm() -> Iterator[None]:
    """A message counts as published as soon as it is on its way."""
    publish = SimulatedBroker.publish
    under_way: set[asyncio.Task[None]] = set()

    async def send(broker: SimulatedBroker, message: Message) -> None:
        with suppress(EventsError):
            await publish(broker, message)

    async def publish_unconfirmed(self: SimulatedBroker, message: Message) -> None:
        task = asyncio.create_task(send(self, message))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    with patch.object(SimulatedBroker, "publish", publish_unconfirmed):
        yield


def a_new_key_on_each_try() -> AbstractContextManager[object]:
    """The provider can't tell that it is asked for the same charge again."""
    request_for = work._charge_request

    def request_under_a_new_key(payment: Payment) -> ChargeRequest:
        return replace(request_for(payment), key=str(uuid4()))

    return patch.object(work, "_charge_request", request_under_a_new_key)


def a_timeout_taken_for_a_decline() -> AbstractContextManager[object]:
    """Who does not answer has refused."""
    perform = work.Charging.perform

    async def perform_impatiently(self: work.Charging, payment: Payment) -> Payment:
        try:
            return await perform(self, payment)
        except UnknownOutcome:
            return payment.declined(code="timeout", message="The provider did not answer.")

    return patch.object(work.Charging, "perform", perform_impatiently)


def invoice_numbers_from_a_sequence() -> AbstractContextManager[object]:
    """Numbers come from a counter that no rollback turns back."""
    sequence = count(1)

    async def issue(tx: Transaction, orders: Sequence[Order]) -> list[Invoice]:
        issued = []
        now = datetime.now(UTC)
        for order in orders:
            if await tx.fetch("SELECT FROM invoices WHERE order_id = $1", order.id):
                continue
            serial = next(sequence)
            snapshot = msgspec.json.encode(order)
            await tx.execute(
                "INSERT INTO invoices (year, serial, order_id, issued_at, snapshot) "
                "VALUES ($1, $2, $3, $4, $5)",
                *(now.year, serial, order.id, now, snapshot),
            )
            await tx.execute(
                """INSERT INTO invoice_counters (year, last) VALUES ($1, $2)
                   ON CONFLICT (year) DO UPDATE SET last = excluded.last""",
                *(now.year, serial),
            )
            issued.append(Invoice(Number(now.year, serial), now, order))
        return issued

    return patch.object(invoices, "issue", issue)


def dead_events_dropped() -> AbstractContextManager[object]:
    """What can't be handled is forgotten."""

    async def insert(_: Transaction, rows: Sequence[tuple[object, ...]]) -> None:
        return

    return patch.object(parked, "_insert", insert)


def deduplicated_outside_the_transaction() -> AbstractContextManager[object]:
    """The inbox is written in a transaction of its own, before the event is handled."""

    async def commit_apart(self: Worker, items: Sequence[Item]) -> Sequence[None]:
        by_id = {item.id: item for item in items}
        async with self._transactions() as tx:
            new = await inbox.register(tx, by_id.keys())
        async with self._transactions() as tx:
            await self._handle([by_id[item_id] for item_id in by_id if item_id in new], tx)
            await self._attempts.finish(tx, by_id)
        self._attempts.forget(by_id)
        return [None] * len(items)

    return patch.object(Worker, "_commit_together", commit_apart)


def a_commit_whose_answer_is_not_looked_at() -> AbstractContextManager[object]:
    """PostgreSQL answers COMMIT with ROLLBACK, and that counts as committed."""

    async def trusted(call: Awaitable[Any], *connection: Any) -> Any:
        answer = await answer_of(call, *connection)
        return "COMMIT" if answer == "ROLLBACK" else answer

    return patch.object(transaction, "answer_of", trusted)


def assumptions_that_are_not_checked() -> AbstractContextManager[object]:
    """What a transaction takes for new counts as new, whatever the database found."""
    joined = statements.joined

    def joined_without_checks(parts: tuple[statements.Part, ...]) -> str:
        return re.sub(r"expect_rows\((\$\d+), (\(.*?\)), '.*?'\)", r"\1::bigint = \2", joined(parts))

    return patch.object(statements, "joined", joined_without_checks)


def redelivered_events_not_counted() -> AbstractContextManager[object]:
    """Each attempt at an event that kills its process is the first."""
    begin = inbox.Attempts.begin

    async def begin_first(self: inbox.Attempts, tx: Transaction, event_id: UUID) -> int:
        await begin(self, tx, event_id)
        return 1

    return patch.object(inbox.Attempts, "begin", begin_first)


@dataclass(frozen=True)
class Variant:
    """One mistake."""

    mistake: Callable[[], AbstractContextManager[Any]]
    invariant: str
    """Which must catch it."""
    fates: Sequence[Fate]
    """What brings it to light."""

    @property
    def name(self) -> str:
        """Its name."""
        return self.mistake.__name__


_DEATHS: Final = (Fate.KILLED_BEFORE, Fate.KILLED_AFTER)

VARIANTS: Final = (
    # Who dies before the commit never gets the event again.
    Variant(acknowledged_before_the_commit, "I13", _DEATHS),
    # Nothing tells what had its effect already.
    Variant(without_an_inbox, "I14", ()),
    # Who dies between the two leaves an order that nobody ever hears of.
    Variant(announced_after_the_commit, "I12", _DEATHS),
    # What the broker never had is not sent again.
    Variant(marked_before_the_confirm, "I13", (Fate.LOST, Fate.REFUSED)),
    # What was charged while the answer was lost is charged again.
    Variant(a_new_key_on_each_try, "I6", (Fate.ANSWER_LOST, Fate.LATE)),
    # The provider has the money of a payment that is said to have failed.
    Variant(a_timeout_taken_for_a_decline, "I8", (Fate.ANSWER_LOST,)),
    # A transaction that is rolled back keeps its numbers.
    Variant(invoice_numbers_from_a_sequence, "I18", (Fate.UNDONE, Fate.DEFECT)),
    # The poison is nowhere to be found.
    Variant(dead_events_dropped, "I16", ()),
    # Who dies between the two has taken the event over, and it never has its effect.
    Variant(deduplicated_outside_the_transaction, "I16", _DEATHS),
    # What was rolled back is acknowledged, and nobody hears of it again.
    Variant(a_commit_whose_answer_is_not_looked_at, "I13", (Fate.SWALLOWED,)),
    # A key that is taken makes another order.
    Variant(assumptions_that_are_not_checked, "I2", ()),
    # Each process that takes the event dies, for ever.
    Variant(redelivered_events_not_counted, "I22", ()),
)
