"""Billing's tables, and the statements on them: one statement per table and batch."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import TIMESTAMP

from events import statements
from events.contracts import Declined, Invoiced, Paid, Undeliverable
from events.leases import LEASE_SECONDS, Leases, claimed, lease_columns, lease_indexes
from events.transaction import Transaction
from services.billing.domain import (
    PRESENT_FORM,
    SHIPMENT_FAILED,
    FreePayment,
    IdempotencyKey,
    Payment,
    Refund,
)

METADATA: Final = MetaData()

PAYMENTS: Final = Table(
    "payments",
    METADATA,
    Column("id", postgresql.UUID, primary_key=True),
    Column("order_id", postgresql.UUID, nullable=False, unique=True),
    Column("amount", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("payment_method", Text),
    Column("snapshot", LargeBinary, nullable=False),
    Column("form", SmallInteger, nullable=False, server_default=text("1")),
    Column("generation", Integer, nullable=False, server_default=text("1")),
    Column("first_tried_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    Column("provider", Text),
    Column("provider_reference", Text),
    Column("reason_code", Text),
    Column("reason_message", Text),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    Column("settled_at", TIMESTAMP(timezone=True)),
    *lease_columns(),
    *lease_indexes("payments", "pending"),
)
"""One payment per order; `state` is pending, captured, declined, or dead after repeated defects.

A payment of 0 is captured from the beginning: its provider is NO_PROVIDER, and it has no payment method.
`snapshot` is the Invoiced data as JSON. `form` is the domain's RequestForm; a process of the previous
version leaves it to its default. `first_tried_at` belongs to the key of the present `generation` and is
never later than its first use.
"""

REFUNDS: Final = Table(
    "refunds",
    METADATA,
    Column("id", postgresql.UUID, primary_key=True),
    Column("order_id", postgresql.UUID, nullable=False),
    Column("cause", Text, nullable=False),
    Column("payment_id", postgresql.UUID, ForeignKey("payments.id"), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("snapshot", LargeBinary, nullable=False),
    Column("generation", Integer, nullable=False, server_default=text("1")),
    Column("first_tried_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    Column("provider_reference", Text),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    Column("settled_at", TIMESTAMP(timezone=True)),
    Column("by_hand", Boolean, nullable=False, server_default=text("false")),
    *lease_columns(),
    *lease_indexes("refunds", "pending"),
    UniqueConstraint("order_id", "cause", name="refunds_order_id_cause_key"),
)
"""One refund per order and cause; `state` is pending, refunded, or dead. `by_hand` as in the event.

`snapshot` is the Undeliverable data as JSON; `first_tried_at` as with payments.
"""

_encoder = msgspec.json.Encoder()
_invoiced = msgspec.json.Decoder(Invoiced)
_undeliverable = msgspec.json.Decoder(Undeliverable)

_NEW_ROW: Final = {
    "claimed_until": claimed(),
    "settled_at": "CASE WHEN row.state <> 'pending' THEN now() END",
}
_PAYMENT: Final = (
    "id order_id amount currency payment_method snapshot form state provider provider_reference".split()
)
_ADD_PAYMENTS: Final = statements.insert(
    PAYMENTS, _PAYMENT, computed=_NEW_ROW, then="ON CONFLICT DO NOTHING RETURNING id"
)
_REFUND: Final = "id order_id cause payment_id amount currency snapshot state provider_reference".split()
_ADD_REFUNDS: Final = statements.insert(
    REFUNDS, _REFUND, computed=_NEW_ROW, then="ON CONFLICT DO NOTHING RETURNING id"
)
_CAPTURED: Final = """
    SELECT order_id, id, provider, provider_reference, amount FROM payments
    WHERE order_id = ANY($1::uuid[]) AND state = 'captured'"""

_PAYMENT_OUTCOME: Final = ("id", "state", "provider", "provider_reference", "reason_code", "reason_message")
_SETTLE_PAYMENTS: Final = f"""
    UPDATE payments AS t SET state = row.state, provider = row.provider,
        provider_reference = row.provider_reference, reason_code = row.reason_code,
        reason_message = row.reason_message, settled_at = now(), last_error = NULL
    FROM {statements.rows(PAYMENTS, _PAYMENT_OUTCOME)}
    WHERE t.id = row.id AND t.state = 'pending' RETURNING t.id"""  # noqa: S608  # our own table
_REFUND_OUTCOME: Final = ("id", "state", "provider_reference")
_SETTLE_REFUNDS: Final = f"""
    UPDATE refunds AS t SET state = row.state, provider_reference = row.provider_reference,
        settled_at = now(), last_error = NULL
    FROM {statements.rows(REFUNDS, _REFUND_OUTCOME)}
    WHERE t.id = row.id AND t.state = 'pending' RETURNING t.id"""  # noqa: S608  # our own table


# The process that learns first that the present key is void writes the next one.
_RENEW_PAYMENTS: Final = f"""
    UPDATE payments AS t SET generation = row.generation, first_tried_at = now(), claimed_until = now()
    FROM {statements.rows(PAYMENTS, ("id", "generation"))}
    WHERE t.id = row.id AND t.state = 'pending' AND t.generation = row.generation - 1"""  # noqa: S608
_RENEW_REFUNDS: Final = """
    UPDATE refunds AS t SET generation = row.generation, first_tried_at = now() + row.pause,
        claimed_until = now() + row.pause, state = row.state, last_error = coalesce(row.error, t.last_error),
        last_failure = CASE WHEN row.error IS NULL THEN t.last_failure ELSE 'postponed' END
    FROM unnest($1::uuid[], $2::int[], $3::text[], $4::interval[], $5::text[])
        AS row (id, generation, state, pause, error)
    WHERE t.id = row.id AND t.state = 'pending' AND t.generation = row.generation - 1"""

_DEAD_REFUND: Final = """
    SELECT id, snapshot, generation, last_error FROM refunds
    WHERE order_id = $1 AND state = 'dead' FOR UPDATE"""
_STATES_OF_REFUNDS: Final = "SELECT state FROM refunds WHERE order_id = $1"
_RECORD_REFUND: Final = """
    UPDATE refunds SET state = 'refunded', provider_reference = $2, by_hand = true, settled_at = now()
    WHERE id = $1"""


def _key_of(record: asyncpg.Record) -> IdempotencyKey:
    """The key of a row that was claimed just now: the database's time follows from the end of its claim."""
    now = record["claimed_until"] - timedelta(seconds=LEASE_SECONDS)
    return IdempotencyKey(record["id"], record["generation"], now - record["first_tried_at"])


def _payment(record: asyncpg.Record) -> Payment:
    invoiced = _invoiced.decode(record["snapshot"])
    return Payment(record["id"], invoiced, record["payment_method"], _key_of(record), record["form"])


def _refund(record: asyncpg.Record) -> Refund:
    return Refund(record["id"], _undeliverable.decode(record["snapshot"]), _key_of(record))


_CLAIMED: Final = ("id", "snapshot", "generation", "first_tried_at", "claimed_until")
PENDING_PAYMENTS: Final = Leases(
    PAYMENTS, _payment, waiting="pending", columns=(*_CLAIMED, "payment_method", "form")
)
PENDING_REFUNDS: Final = Leases(REFUNDS, _refund, waiting="pending", columns=_CLAIMED)


async def add_payments(
    tx: Transaction, payments: Sequence[Payment | FreePayment]
) -> list[Payment | FreePayment]:
    """Inserts pending payments, claimed by this process, and free ones; returns those that are new.

    An order has at most one payment.
    """
    by_id = {payment.id: payment for payment in reversed(payments)}
    ordered = sorted(by_id.values(), key=lambda payment: payment.invoiced.order.id)
    added = await _fetch_ids(tx, _ADD_PAYMENTS, [_row(payment) for payment in ordered], len(_PAYMENT))
    return [payment for payment in ordered if payment.id in added]


def _row(payment: Payment | FreePayment) -> tuple[object, ...]:
    """The columns of _PAYMENT."""
    order = payment.invoiced.order
    about = (payment.id, order.id, order.total, order.currency)
    snapshot = _encoder.encode(payment.invoiced)
    match payment:
        case Payment(payment_method=payment_method, form=form, state=state):
            return *about, payment_method, snapshot, form, state, None, None
        case FreePayment(outcome=Paid(payment=paid)):
            return *about, None, snapshot, PRESENT_FORM, "captured", paid.provider, paid.provider_reference


async def settle_payments(tx: Transaction, payments: Sequence[Payment]) -> list[Payment]:
    """Writes the outcomes, and returns the payments that were pending until now."""
    ordered = sorted(payments, key=lambda payment: payment.id)
    records = [(payment.id, payment.state, *_details(payment.outcome)) for payment in ordered]
    settled = await _fetch_ids(tx, _SETTLE_PAYMENTS, records, len(_PAYMENT_OUTCOME))
    return [payment for payment in ordered if payment.id in settled]


async def renew_payment_keys(tx: Transaction, payments: Sequence[Payment]) -> None:
    """Writes the next keys of pending payments, which are due at once."""
    records = sorted((payment.id, payment.key.generation) for payment in payments)
    await tx.execute(_RENEW_PAYMENTS, *statements.columns_of(records, 2))


@dataclass(frozen=True, slots=True)
class CapturedPayment:
    """A payment that can be refunded."""

    id: UUID
    provider: str
    provider_reference: str
    amount: int


async def captured_payments(tx: Transaction, order_ids: Collection[UUID]) -> dict[UUID, CapturedPayment]:
    """Returns the captured payments of these orders, by order."""
    records = await tx.fetch(_CAPTURED, sorted(order_ids))
    return {
        record["order_id"]: CapturedPayment(
            record["id"], record["provider"], record["provider_reference"], record["amount"]
        )
        for record in records
    }


async def add_refunds(tx: Transaction, refunds: Sequence[Refund]) -> list[Refund]:
    """Inserts refunds, the pending ones claimed by this process; returns those that are new.

    An order has at most one refund for each cause.
    """
    by_id = {refund.id: refund for refund in reversed(refunds)}
    ordered = sorted(by_id.values(), key=lambda refund: refund.undeliverable.order.id)
    records = [
        (
            refund.id,
            refund.undeliverable.order.id,
            SHIPMENT_FAILED,
            UUID(refund.undeliverable.payment.id),
            refund.undeliverable.payment.amount,
            refund.undeliverable.order.currency,
            _encoder.encode(refund.undeliverable),
            refund.state,
            refund.outcome and refund.outcome.refund.provider_reference,
        )
        for refund in ordered
    ]
    added = await _fetch_ids(tx, _ADD_REFUNDS, records, len(_REFUND))
    return [refund for refund in ordered if refund.id in added]


async def settle_refunds(tx: Transaction, refunds: Sequence[Refund]) -> list[Refund]:
    """Writes that the refunds were made, and returns those that were pending until now."""
    ordered = sorted(refunds, key=lambda refund: refund.id)
    records = [
        (refund.id, refund.state, refund.outcome and refund.outcome.refund.provider_reference)
        for refund in ordered
    ]
    settled = await _fetch_ids(tx, _SETTLE_REFUNDS, records, len(_REFUND_OUTCOME))
    return [refund for refund in ordered if refund.id in settled]


async def renew_refund_keys(tx: Transaction, refunds: Sequence[Refund]) -> None:
    """Writes the next keys of pending refunds, and which of them are dead from now on."""
    records = sorted(
        (refund.id, refund.key.generation, refund.state, refund.pause, refund.failure) for refund in refunds
    )
    await tx.execute(_RENEW_REFUNDS, *statements.columns_of(records, 5))


async def dead_refund(tx: Transaction, order_id: UUID) -> Refund | None:
    """Returns the order's dead refund, and locks it until the transaction ends."""
    for record in await tx.fetch(_DEAD_REFUND, order_id):
        key = IdempotencyKey(record["id"], record["generation"])
        snapshot = _undeliverable.decode(record["snapshot"])
        return Refund(record["id"], snapshot, key, state="dead", failure=record["last_error"])
    return None


async def refund_states(tx: Transaction, order_id: UUID) -> list[str]:
    """Returns the states of the order's refunds."""
    return [record["state"] for record in await tx.fetch(_STATES_OF_REFUNDS, order_id)]


async def record_refund(tx: Transaction, refund: Refund) -> None:
    """Writes that a person has made this refund, which was dead."""
    assert refund.outcome
    await tx.execute(_RECORD_REFUND, refund.id, refund.outcome.refund.provider_reference)


def _details(outcome: Paid | Declined | None) -> tuple[str | None, str | None, str | None, str | None]:
    """An outcome's provider, provider reference, reason code and message; None for those that it has not."""
    match outcome:
        case Paid(payment=payment):
            return payment.provider, payment.provider_reference, None, None
        case Declined(reason=reason):
            return None, None, reason.code, reason.message
        case None:
            return None, None, None, None


async def _fetch_ids(tx: Transaction, sql: str, records: Sequence[Sequence[Any]], width: int) -> set[UUID]:
    """Returns the ids of the records that were written; an id is a record's first column."""
    columns = statements.columns_of(records, width)
    return await tx.fetch_keys(sql, *columns, expected=columns[0])
