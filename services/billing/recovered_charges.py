"""Recovered charges: charges that the provider has and that a restored database did not know.

`orderflow restore` writes the rows while billing is stopped. A charge is refunded, or kept to pay for its
order: billing then assigns it to the order's payment instead of charging again.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, TypeAlias
from uuid import NAMESPACE_URL, UUID, uuid5

from sqlalchemy import BigInteger, Column, Index, Table, Text, func, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import TIMESTAMP

from events import statements
from events.transaction import Transaction
from services.billing.domain import Payment
from services.billing.provider import ListedCharge
from services.billing.repository import METADATA

RECOVERED_CHARGES: Final = Table(
    "recovered_charges",
    METADATA,
    Column("charge", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("payment_id", postgresql.UUID, nullable=False),
    Column("order_id", postgresql.UUID, nullable=False),
    Column("order_reference", Text),
    Column("key_hash", Text),
    Column("amount", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("charged_at", TIMESTAMP(timezone=True), nullable=False),
    Column("decision", Text, nullable=False),
    Column("to_refund", BigInteger, nullable=False),
    Column("refund_id", postgresql.UUID),
    Column("refund_reference", Text),
    Column("taken_by", postgresql.UUID),
    Column("decided_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    Index(
        "recovered_charges_waiting",
        "order_id",
        postgresql_where=text("decision = 'kept' AND taken_by IS NULL"),
    ),
)
"""`charge` is the provider's id; order, payment and key are from the charge's metadata.

`decision` is `refund` (`to_refund` is what was left of the charge, `refund_reference` is set once that is
refunded) or `kept`. `taken_by` is the order that a kept charge has paid for.
"""

Decision: TypeAlias = Literal["kept", "refund"]

ORDER_KEY_LIFETIME: Final = timedelta(days=30)
"""How long order remembers an `Idempotency-Key`: later the same key means another order."""

_DECISION: Final = (
    "charge provider payment_id order_id order_reference key_hash amount currency charged_at decision "
    "to_refund refund_id"
).split()
_DECIDE: Final = statements.insert(
    RECOVERED_CHARGES,
    _DECISION,
    then="""
    ON CONFLICT (charge) DO UPDATE
    SET decision = excluded.decision, to_refund = excluded.to_refund, refund_id = excluded.refund_id,
        decided_at = now()
    WHERE recovered_charges.decision = 'kept' AND recovered_charges.taken_by IS NULL
    RETURNING charge""",
)
_ANY_UNASSIGNED: Final = (
    "SELECT true FROM recovered_charges WHERE decision = 'kept' AND taken_by IS NULL LIMIT 1"
)
_UNASSIGNED: Final = """
    SELECT * FROM recovered_charges WHERE provider = $1 AND decision = 'kept' AND taken_by IS NULL
    ORDER BY charged_at DESC"""
_TO_REFUND: Final = """
    SELECT charge, order_id, refund_id, to_refund, amount, currency FROM recovered_charges
    WHERE provider = $1 AND decision = 'refund' AND to_refund > 0 AND refund_reference IS NULL
    ORDER BY charge"""
_RECORD_REFUND: Final = """
    UPDATE recovered_charges SET refund_reference = $2 WHERE charge = $1 AND refund_reference IS NULL"""
_UNKNOWN: Final = """
    SELECT c.reference FROM unnest($1::text[], $2::uuid[]) AS c (reference, payment_id)
    WHERE NOT EXISTS (SELECT FROM payments p
            WHERE p.id = c.payment_id AND coalesce(p.provider_reference, c.reference) = c.reference)
        AND NOT EXISTS (SELECT FROM recovered_charges r WHERE r.charge = c.reference)"""
_ASSIGN: Final = f"""
    WITH due AS (
        SELECT row.order_id, (
            SELECT r.charge FROM recovered_charges r
            WHERE r.decision = 'kept' AND r.taken_by IS NULL
                AND (r.amount, r.currency) = (row.amount, row.currency)
                AND (r.order_id = row.order_id
                    OR r.key_hash = row.key_hash
                        AND r.charged_at > now() - interval '{ORDER_KEY_LIFETIME.days} days')
            ORDER BY r.order_id <> row.order_id, r.charge LIMIT 1) AS charge
        FROM {statements.rows(RECOVERED_CHARGES, ("order_id", "key_hash", "amount", "currency"))})
    UPDATE recovered_charges AS t SET taken_by = due.order_id FROM due
    WHERE t.charge = due.charge AND t.taken_by IS NULL
    RETURNING t.taken_by, t.provider, t.charge, t.amount, t.currency, t.charged_at"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class RecoveredCharge:
    """A charge that a restored database did not know, and the decision about it."""

    charge: ListedCharge
    decision: Decision
    to_refund: int = 0
    """Minor units still to be refunded; 0 for a charge that is kept or was refunded before."""


@dataclass(frozen=True, slots=True)
class ChargeToRefund:
    """A recovered charge that is still to be refunded."""

    charge: str
    order_id: UUID
    refund_id: UUID
    amount: int
    """Minor units to be refunded."""
    charged: int
    """Minor units that were charged."""
    currency: str


async def find_unknown(tx: Transaction, charges: Collection[ListedCharge]) -> set[str]:
    """Returns the references of charges that belong to no payment and were not recovered.

    A second charge for a payment that another charge has settled counts as unknown, too. Billing commits a
    payment before it charges. So if the charges were listed before this transaction began, every known one is
    found here.
    """
    rows = [(charge.reference, charge.payment_id) for charge in charges]
    found = await tx.fetch(_UNKNOWN, *statements.columns_of(rows, 2))
    return {record["reference"] for record in found}


async def record_decisions(tx: Transaction, provider: str, decisions: Sequence[RecoveredCharge]) -> set[str]:
    """Writes the decisions, and returns the references of the charges that they took effect for.

    A kept charge that has not paid an order yet can still be refunded. All other decisions are final.
    """
    rows = [
        (
            each.charge.reference,
            provider,
            each.charge.payment_id,
            each.charge.order_id,
            each.charge.order_reference,
            each.charge.key_hash,
            each.charge.amount,
            each.charge.currency,
            each.charge.at,
            each.decision,
            each.to_refund,
            _refund_id(each.charge) if each.to_refund else None,
        )
        for each in sorted(decisions, key=lambda decision: decision.charge.reference)
    ]
    found = await tx.fetch(_DECIDE, *statements.columns_of(rows, len(_DECISION)))
    return {record["charge"] for record in found}


async def unassigned(tx: Transaction, provider: str) -> list[ListedCharge]:
    """Returns the kept charges that have not paid an order yet."""
    return [
        ListedCharge(
            reference=record["charge"],
            payment_id=record["payment_id"],
            order_id=record["order_id"],
            amount=record["amount"],
            currency=record["currency"],
            at=record["charged_at"],
            order_reference=record["order_reference"],
            key_hash=record["key_hash"],
        )
        for record in await tx.fetch(_UNASSIGNED, provider)
    ]


async def any_unassigned(tx: Transaction) -> bool:
    """Whether a kept charge has not paid an order yet."""
    return bool(await tx.fetch_keys(_ANY_UNASSIGNED, expected=()))


async def refunds_to_make(tx: Transaction, provider: str) -> list[ChargeToRefund]:
    """Returns the charges to be refunded that have no refund on record yet."""
    return [
        ChargeToRefund(
            record["charge"],
            record["order_id"],
            record["refund_id"],
            record["to_refund"],
            record["amount"],
            record["currency"],
        )
        for record in await tx.fetch(_TO_REFUND, provider)
    ]


async def record_refund(tx: Transaction, charge: str, refund_reference: str) -> None:
    """Writes that the provider has refunded the charge."""
    await tx.execute(_RECORD_REFUND, charge, refund_reference)


async def assign_to(tx: Transaction, payments: Collection[Payment]) -> list[Payment]:
    """Assigns kept charges to payments; returns the payments that are captured by that.

    A kept charge pays for its own order, or for an order of the same amount that was placed with the
    `Idempotency-Key` of its lost order. A charge pays for one order.
    """
    by_order = {payment.invoiced.order.id: payment for payment in payments}
    orders = [payment.invoiced.order for payment in payments]
    rows = [(order.id, order.key_hash, order.total, order.currency) for order in orders]
    return [
        by_order[record["taken_by"]].captured(
            provider=record["provider"],
            reference=record["charge"],
            amount=record["amount"],
            currency=record["currency"],
            at=record["charged_at"],
        )
        for record in await tx.fetch(_ASSIGN, *statements.columns_of(rows, 4))
    ]


def _refund_id(charge: ListedCharge) -> UUID:
    """Derives the same id for the same charge, so a repeated refund has the same key."""
    return uuid5(NAMESPACE_URL, f"urn:orderflow:recovered:{charge.reference}")
