"""Systems with one deliberate, classic mistake each, to test the checks.

`VARIANTS` names for every mistake the invariant that must catch it. The mistake that needs a real broker, a
consumer that is not restarted, is in `tests.conformance.test_broken_consumer`.
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
from events.contracts import Order, Seller
from events.errors import EventsError, UnknownOutcome
from events.transaction import Transaction
from events.worker import Received, Worker
from services.billing import work
from services.billing.domain import Payment
from services.billing.provider import ChargeRequest
from services.invoice import repository as invoices
from services.invoice.domain import Invoice, Number
from tests.simulation.broker import SimulatedBroker
from tests.simulation.database import SteppedTransactions
from tests.simulation.endings import Ending


@contextmanager
def acknowledged_before_the_commit() -> Iterator[None]:
    """Deliveries are acknowledged before they are handled."""
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
    """Handled events are not recorded, so every event is always new."""

    async def register(_: Transaction, event_ids: Collection[UUID], digests: Mapping[UUID, int]) -> set[UUID]:
        return set(event_ids)

    async def known(_: Transaction, event_ids: Collection[UUID]) -> set[UUID]:
        return set()

    with patch.object(inbox, "register", register), patch.object(inbox, "already_registered", known):
        yield


@contextmanager
def announced_after_the_commit() -> Iterator[None]:
    """The outbox is written in a separate transaction after the fact is committed."""
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
    """A message counts as published as soon as it is sent."""
    publish = SimulatedBroker.publish
    sending: set[asyncio.Task[None]] = set()

    async def send(broker: SimulatedBroker, message: Message) -> None:
        with suppress(EventsError):
            await publish(broker, message)

    async def publish_unconfirmed(self: SimulatedBroker, message: Message) -> None:
        task = asyncio.create_task(send(self, message))
        sending.add(task)
        task.add_done_callback(sending.discard)

    with patch.object(SimulatedBroker, "publish", publish_unconfirmed):
        yield


def a_new_key_on_each_try() -> AbstractContextManager[object]:
    """Each attempt at a charge has another key, so the provider can't recognize a repetition."""
    request_for = work._charge_request

    def request_under_a_new_key(payment: Payment) -> ChargeRequest:
        return replace(request_for(payment), key=str(uuid4()))

    return patch.object(work, "_charge_request", request_under_a_new_key)


def a_timeout_taken_for_a_decline() -> AbstractContextManager[object]:
    """A provider that does not answer counts as having declined."""
    perform = work.Charging.perform

    async def perform_with_decline(self: work.Charging, payment: Payment) -> Payment:
        try:
            return await perform(self, payment)
        except UnknownOutcome:
            return payment.declined(code="timeout", message="The provider did not answer.")

    return patch.object(work.Charging, "perform", perform_with_decline)


def invoice_numbers_from_a_sequence() -> AbstractContextManager[object]:
    """Numbers come from a counter that a rollback does not reset."""
    sequence = count(1)

    async def issue(tx: Transaction, orders: Sequence[Order], seller: Seller) -> list[Invoice]:
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
            issued.append(Invoice(Number(now.year, serial), now, now.date(), seller, order))
        return issued

    return patch.object(invoices, "issue", issue)


def dead_events_dropped() -> AbstractContextManager[object]:
    """Events that can't be handled are not stored."""

    async def insert(_: Transaction, rows: Sequence[tuple[object, ...]]) -> None:
        return

    return patch.object(parked, "_insert", insert)


def deduplicated_outside_the_transaction() -> AbstractContextManager[object]:
    """The inbox is written in a separate transaction before the event is handled."""

    async def commit_separately(self: Worker, items: Sequence[Received]) -> Sequence[None]:
        by_id = {item.id: item for item in items}
        async with self._transactions() as tx:
            new = await inbox.register(tx, by_id.keys())
        async with self._transactions() as tx:
            await self._handle([by_id[item_id] for item_id in by_id if item_id in new], tx)
            await self._attempts.finish(tx, by_id)
        self._attempts.forget(by_id)
        return [None] * len(items)

    return patch.object(Worker, "_commit_together", commit_separately)


def commit_without_checking_the_answer() -> AbstractContextManager[object]:
    """If PostgreSQL answers COMMIT with ROLLBACK, it counts as committed."""

    async def trusted(call: Awaitable[Any], *connection: Any) -> Any:
        answer = await answer_of(call, *connection)
        return "COMMIT" if answer == "ROLLBACK" else answer

    return patch.object(transaction, "answer_of", trusted)


def assumptions_without_checks() -> AbstractContextManager[object]:
    """Rows that a transaction assumes to be new count as new, even if the database finds them."""
    joined = statements.joined

    def joined_without_checks(parts: tuple[statements.Part, ...]) -> str:
        return re.sub(r"expect_rows\((\$\d+), (\(.*?\)), '.*?'\)", r"\1::bigint = \2", joined(parts))

    return patch.object(statements, "joined", joined_without_checks)


def redelivered_events_not_counted() -> AbstractContextManager[object]:
    """Each attempt at an event that kills its process counts as the first."""
    begin = inbox.Attempts.begin

    async def begin_first(self: inbox.Attempts, tx: Transaction, event_id: UUID) -> int:
        await begin(self, tx, event_id)
        return 1

    return patch.object(inbox.Attempts, "begin", begin_first)


@dataclass(frozen=True)
class Variant:
    """A system with one mistake."""

    mistake: Callable[[], AbstractContextManager[Any]]
    invariant: str
    """The invariant that must catch it."""
    endings: Sequence[Ending]
    """The endings of steps that reveal it."""

    @property
    def name(self) -> str:
        """The mistake's name."""
        return self.mistake.__name__


_DEATHS: Final = (Ending.KILLED_BEFORE, Ending.KILLED_AFTER)

VARIANTS: Final = (
    # A process that dies before the commit never receives the event again.
    Variant(acknowledged_before_the_commit, "I13", _DEATHS),
    # No record shows which events had their effect.
    Variant(without_an_inbox, "I14", ()),
    # A process that dies between the two leaves an order that is never announced.
    Variant(announced_after_the_commit, "I12", _DEATHS),
    # A message that the broker never received is not sent again.
    Variant(marked_before_the_confirm, "I13", (Ending.LOST, Ending.REFUSED)),
    # A charge whose answer was lost is made again.
    Variant(a_new_key_on_each_try, "I6", (Ending.ANSWER_LOST, Ending.LATE)),
    # The provider has charged for a payment that counts as failed.
    Variant(a_timeout_taken_for_a_decline, "I8", (Ending.ANSWER_LOST,)),
    # A transaction that is rolled back leaves a gap.
    Variant(invoice_numbers_from_a_sequence, "I18", (Ending.UNDONE, Ending.DEFECT)),
    # The poison is not in any table.
    Variant(dead_events_dropped, "I16", ()),
    # If a process dies between the two, the event never has its effect.
    Variant(deduplicated_outside_the_transaction, "I16", _DEATHS),
    # Work that was rolled back is acknowledged, and not delivered again.
    Variant(commit_without_checking_the_answer, "I13", (Ending.SWALLOWED,)),
    # A key that is in use makes a second order.
    Variant(assumptions_without_checks, "I2", ()),
    # Every process that receives the event dies, for ever.
    Variant(redelivered_events_not_counted, "I22", ()),
)
