"""Recovered charges: what the provider had charged and a restored database did not know.

`orderflow restore` writes the rows while billing stands still. Billing takes a charge that was kept as the
payment of its order, in place of charging anew.
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
from services.billing.provider import MadeCharge
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
"""`charge` is the provider's own id; order, payment and key are those that its metadata names.

`decision` is `refund` (`to_refund` is what was left of the charge, `refund_reference` is there once that was
given back) or `kept`. `taken_by` is the order that a kept charge has paid.
"""

Decision: TypeAlias = Literal["kept", "refund"]

KEYS_LAST: Final = timedelta(days=30)
"""How long an `Idempotency-Key` is remembered: a later request with it means another order."""

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
_SOME_KEPT: Final = "SELECT true FROM recovered_charges WHERE decision = 'kept' AND taken_by IS NULL LIMIT 1"
_KEPT: Final = """
    SELECT * FROM recovered_charges WHERE provider = $1 AND decision = 'kept' AND taken_by IS NULL
    ORDER BY charged_at DESC"""
_TO_GIVE_BACK: Final = """
    SELECT charge, order_id, refund_id, to_refund, amount, currency FROM recovered_charges
    WHERE provider = $1 AND decision = 'refund' AND to_refund > 0 AND refund_reference IS NULL
    ORDER BY charge"""
_GIVEN_BACK: Final = """
    UPDATE recovered_charges SET refund_reference = $2 WHERE charge = $1 AND refund_reference IS NULL"""
_UNKNOWN: Final = """
    SELECT made.reference FROM unnest($1::text[], $2::uuid[]) AS made (reference, payment_id)
    WHERE NOT EXISTS (SELECT FROM payments p
            WHERE p.id = made.payment_id AND coalesce(p.provider_reference, made.reference) = made.reference)
        AND NOT EXISTS (SELECT FROM recovered_charges r WHERE r.charge = made.reference)"""
_TAKE: Final = f"""
    WITH due AS (
        SELECT row.order_id, (
            SELECT r.charge FROM recovered_charges r
            WHERE r.decision = 'kept' AND r.taken_by IS NULL
                AND (r.amount, r.currency) = (row.amount, row.currency)
                AND (r.order_id = row.order_id
                    OR r.key_hash = row.key_hash
                        AND r.charged_at > now() - interval '{KEYS_LAST.days} days')
            ORDER BY r.order_id <> row.order_id, r.charge LIMIT 1) AS charge
        FROM {statements.rows(RECOVERED_CHARGES, ("order_id", "key_hash", "amount", "currency"))})
    UPDATE recovered_charges AS t SET taken_by = due.order_id FROM due
    WHERE t.charge = due.charge AND t.taken_by IS NULL
    RETURNING t.taken_by, t.provider, t.charge, t.amount, t.currency, t.charged_at"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Recovered:
    """A recovered charge, and what is to become of it."""

    charge: MadeCharge
    decision: Decision
    to_refund: int = 0
    """What is left to be given back, in minor units; 0 for one that is kept, or was given back before."""


@dataclass(frozen=True, slots=True)
class GivingBack:
    """A recovered charge that is still to be given back."""

    charge: str
    order_id: UUID
    refund_id: UUID
    amount: int
    """What is to be given back, in minor units."""
    charged: int
    """What was charged."""
    currency: str


async def unknown(tx: Transaction, charges: Collection[MadeCharge]) -> set[str]:
    """The references of those charges that belong to no payment and were not recovered.

    A charge of a payment that another charge has settled counts, too. Billing commits a payment before it
    charges, so a charge that was listed before this transaction began is never unknown by haste.
    """
    rows = [(charge.reference, charge.payment_id) for charge in charges]
    found = await tx.fetch(_UNKNOWN, *statements.columns_of(rows, 2))
    return {record["reference"] for record in found}


async def decide(tx: Transaction, provider: str, decisions: Sequence[Recovered]) -> set[str]:
    """Writes the decisions down, and returns the charges that they count for.

    A charge that was kept may be given back later, unless an order has taken it. Nothing else is revised.
    """
    rows = [
        (
            recovered.charge.reference,
            provider,
            recovered.charge.payment_id,
            recovered.charge.order_id,
            recovered.charge.order_reference,
            recovered.charge.key_hash,
            recovered.charge.amount,
            recovered.charge.currency,
            recovered.charge.at,
            recovered.decision,
            recovered.to_refund,
            _refund_id(recovered.charge) if recovered.to_refund else None,
        )
        for recovered in sorted(decisions, key=lambda recovered: recovered.charge.reference)
    ]
    found = await tx.fetch(_DECIDE, *statements.columns_of(rows, len(_DECISION)))
    return {record["charge"] for record in found}


async def kept(tx: Transaction, provider: str) -> list[MadeCharge]:
    """The charges that were kept, and that no order has taken yet."""
    return [
        MadeCharge(
            reference=record["charge"],
            payment_id=record["payment_id"],
            order_id=record["order_id"],
            amount=record["amount"],
            currency=record["currency"],
            at=record["charged_at"],
            order_reference=record["order_reference"],
            key_hash=record["key_hash"],
        )
        for record in await tx.fetch(_KEPT, provider)
    ]


async def any_kept(tx: Transaction) -> bool:
    """Whether a charge that was kept waits for its order."""
    return bool(await tx.fetch_keys(_SOME_KEPT, expected=()))


async def to_give_back(tx: Transaction, provider: str) -> list[GivingBack]:
    """The charges that are to be given back, and of which that is not known to be done."""
    return [
        GivingBack(
            record["charge"],
            record["order_id"],
            record["refund_id"],
            record["to_refund"],
            record["amount"],
            record["currency"],
        )
        for record in await tx.fetch(_TO_GIVE_BACK, provider)
    ]


async def given_back(tx: Transaction, charge: str, refund_reference: str) -> None:
    """Writes down that the provider has given the charge back."""
    await tx.execute(_GIVEN_BACK, charge, refund_reference)


async def take(tx: Transaction, payments: Collection[Payment]) -> list[Payment]:
    """Those of the payments that a kept charge has paid already, as captured.

    It is the charge of the same order; or of a lost order that was made with the same `Idempotency-Key`, over
    the same amount. A charge pays one order.
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
        for record in await tx.fetch(_TAKE, *statements.columns_of(rows, 4))
    ]


def _refund_id(charge: MadeCharge) -> UUID:
    """The same for the same charge, so giving it back twice is asked for under one key."""
    return uuid5(NAMESPACE_URL, f"urn:orderflow:recovered:{charge.reference}")
