"""The simulated payment provider: a third party with a durable ledger of its own.

What becomes of a charge and of its refunds follows from the payment method, which is one of Stripe's own test
tokens (https://docs.stripe.com/testing), and from the amounts that can be charged (`events.limits`). The
ledger is in the schema `provider`, which only the provider's own role can reach; it commits by itself, before
it answers. Concurrent calls share a commit.

Idempotency: the same key with the same parameters gets the same answer, for ever; with other parameters
KeyReused. What was committed while the answer was lost is therefore told when it is asked again.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import asyncpg
from sqlalchemy import BigInteger, Column, ForeignKey, Index, MetaData, Table, Text, func
from sqlalchemy.dialects.postgresql import TIMESTAMP, UUID

from chassis import database, revisions
from events import limits, statements
from events.errors import Postponed
from events.group_commit import GroupCommit
from events.transaction import Transaction
from events.transactions import Transactions
from services.billing import refusals
from services.billing.provider import (
    Captured,
    Charge,
    ChargeAnswer,
    MadeCharge,
    MadeRefund,
    NothingDone,
    NotRepaid,
    Repaid,
    Repayment,
    RepaymentAnswer,
)

LEDGER: Final = MetaData()
HISTORY: Final = "services.billing:ledger"
"""The ledger's migrations."""

CHARGES: Final = Table(
    "charges",
    LEDGER,
    Column("id", Text, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("payment_id", UUID, nullable=False),
    Column("order_id", UUID, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("payment_method", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("decline_code", Text),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    Column("order_reference", Text),
    Column("key_hash", Text),
    Index("charges_payment_id", "payment_id"),
    Index("charges_created_at", "created_at", "id"),
)
"""Every charge that was asked for; `status` is succeeded or failed."""

REFUNDS: Final = Table(
    "refunds",
    LEDGER,
    Column("id", Text, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("refund_id", UUID, nullable=False),
    Column("charge_id", Text, ForeignKey("charges.id"), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("status", Text, nullable=False, server_default="succeeded"),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    Index("refunds_charge_id", "charge_id"),
)
"""Every refund that was asked for; `status` is succeeded, failed, or pending until it is asked for again."""

REFUNDS_FAIL: Final = "pm_card_refundFail"
REFUNDS_PEND: Final = "pm_card_pendingRefund"
"""Cards that pay and whose refunds fail, or are pending at first: https://docs.stripe.com/testing#refunds"""

PAYS: Final = frozenset(
    f"pm_card_{brand}"
    for brand in (
        "visa visa_debit mastercard mastercard_debit mastercard_prepaid amex discover diners jcb unionpay "
        "pendingRefund refundFail br mx ca de es fr gb it nl pt pl se ch jp au nz in sg us"
    ).split()
)
"""Tokens of cards that pay."""

DECLINES: Final[dict[str, str]] = {
    "pm_card_chargeDeclined": "card_declined",
    "pm_card_visa_chargeDeclined": "card_declined",
    "pm_card_chargeDeclinedInsufficientFunds": "insufficient_funds",
    "pm_card_visa_chargeDeclinedInsufficientFunds": "insufficient_funds",
    "pm_card_chargeDeclinedLostCard": "lost_card",
    "pm_card_visa_chargeDeclinedLostCard": "lost_card",
    "pm_card_chargeDeclinedStolenCard": "stolen_card",
    "pm_card_visa_chargeDeclinedStolenCard": "stolen_card",
    "pm_card_chargeDeclinedFraudulent": "fraudulent",
    "pm_card_chargeDeclinedExpiredCard": "expired_card",
    "pm_card_chargeDeclinedIncorrectCvc": "incorrect_cvc",
    "pm_card_chargeDeclinedProcessingError": "processing_error",
    "pm_card_chargeDeclinedVelocityLimitExceeded": "card_velocity_exceeded",
    "pm_card_visa_chargeDeclinedVelocityLimitExceeded": "card_velocity_exceeded",
    "pm_card_authenticationRequired": "authentication_required",
    "pm_card_threeDSecure2Required": "authentication_required",
}
"""Tokens of cards that don't, and the code that Stripe gives. There is no customer here to authenticate."""


class KeyReused(Exception):
    """The idempotency key was used before, with other parameters."""


_CHARGE: Final = (
    "id key payment_id order_id amount currency payment_method status decline_code order_reference key_hash"
).split()
_PARAMETERS: Final = ("payment_id", "order_id", "amount", "currency", "payment_method")
_ADD_CHARGES: Final = statements.insert(CHARGES, _CHARGE, then="ON CONFLICT (key) DO NOTHING RETURNING *")
_CHARGES_OF_KEYS: Final = "SELECT * FROM charges WHERE key = ANY($1::text[])"
_CHARGES_OF_PAYMENT: Final = "SELECT * FROM charges WHERE payment_id = $1 ORDER BY status DESC"

_REFUND: Final = ("id", "key", "refund_id", "charge_id", "amount", "status")
_LOCK_CHARGES: Final = """
    SELECT id, amount, payment_method FROM charges WHERE id = ANY($1::text[]) AND status = 'succeeded'
    ORDER BY id FOR UPDATE"""
_REFUNDS_KNOWN: Final = "SELECT * FROM refunds WHERE charge_id = ANY($1::text[]) OR key = ANY($2::text[])"
_ADD_REFUNDS: Final = statements.insert(REFUNDS, _REFUND, then="ON CONFLICT (key) DO NOTHING RETURNING *")
_END_PENDING: Final = """
    UPDATE refunds SET status = 'succeeded' WHERE status = 'pending' AND refund_id = ANY($1::uuid[])"""
_REFUNDS_OF_ID: Final = "SELECT * FROM refunds WHERE refund_id = $1 AND status = 'succeeded'"

PAGE: Final = 1000
"""Most rows that are listed at once."""
_LIST_CHARGES: Final = """
    SELECT * FROM charges
    WHERE status = 'succeeded' AND ($1::timestamptz IS NULL OR created_at >= $1)
        AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3))
    ORDER BY created_at DESC, id DESC LIMIT $4"""
_LIST_REFUNDS: Final = """
    SELECT * FROM refunds
    WHERE status <> 'failed' AND ($1::timestamptz IS NULL OR created_at >= $1)
        AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3))
    ORDER BY created_at DESC, id DESC LIMIT $4"""


class SimulatedProvider:
    """Keeps the promises of `provider.PaymentProvider` on a ledger of its own."""

    name = "simulated"

    def __init__(self, ledger: Transactions, *, latency: float = 0.0) -> None:
        """`latency` (seconds) passes before every charge and refund."""
        self._ledger = ledger
        self._latency = latency
        self._charges: GroupCommit[Charge, ChargeAnswer | KeyReused] = GroupCommit(self._commit_charges)
        self._repayments: GroupCommit[Repayment, Repaid | NotRepaid | KeyReused | Postponed] = GroupCommit(
            self._commit_repayments
        )

    async def charge(self, charge: Charge) -> ChargeAnswer:
        """Charges once per key. Raises KeyReused."""
        await self._take_time()
        answer = await self._charges.submit(charge)
        if isinstance(answer, KeyReused):
            raise answer
        return answer

    async def look_up(self, charge: Charge) -> ChargeAnswer:
        """The charge of the payment; one that succeeded comes before those that did not."""
        records = await self._ledger.fetch(_CHARGES_OF_PAYMENT, charge.payment_id)
        return _answer(records[0]) if records else NothingDone()

    async def repay(self, repayment: Repayment) -> RepaymentAnswer:
        """Gives back once per key, and never more than was captured.

        Raises KeyReused, or Postponed while the refund is pending.
        """
        await self._take_time()
        answer = await self._repayments.submit(repayment)
        if isinstance(answer, KeyReused | Postponed):
            raise answer
        return answer

    async def look_up_repayment(self, repayment: Repayment) -> RepaymentAnswer:
        """The refund, if it was made; one that was pending has been by now."""
        async with self._ledger() as tx:
            await tx.execute(_END_PENDING, [repayment.refund_id])
            records = await tx.fetch(_REFUNDS_OF_ID, repayment.refund_id)
        return _repaid(records[0]) if records else NothingDone()

    async def charges(self, since: datetime | None = None) -> AsyncGenerator[MadeCharge, None]:
        """See Records."""
        async for record in self._list(_LIST_CHARGES, since):
            yield MadeCharge(
                reference=record["id"],
                payment_id=record["payment_id"],
                order_id=record["order_id"],
                amount=record["amount"],
                currency=record["currency"],
                at=record["created_at"],
                order_reference=record["order_reference"],
                key_hash=record["key_hash"],
            )

    async def refunds(self, since: datetime | None = None) -> AsyncGenerator[MadeRefund, None]:
        """See Records."""
        async for record in self._list(_LIST_REFUNDS, since):
            yield MadeRefund(
                reference=record["id"],
                charge_reference=record["charge_id"],
                amount=record["amount"],
                at=record["created_at"],
                refund_id=record["refund_id"],
            )

    async def _list(self, statement: str, since: datetime | None) -> "AsyncIterator[asyncpg.Record]":
        last_at: datetime | None = None
        last_id = ""
        while True:
            async with self._ledger() as tx:
                records = await tx.fetch(statement, since, last_at, last_id, PAGE)
            for record in records:
                yield record
            if len(records) < PAGE:
                return
            last_at, last_id = records[-1]["created_at"], records[-1]["id"]

    async def drain(self) -> None:
        """Returns when nothing is being committed any more."""
        await self._charges.drain()
        await self._repayments.drain()

    async def _take_time(self) -> None:
        if self._latency:
            await asyncio.sleep(self._latency)

    async def _commit_charges(self, charges: Sequence[Charge]) -> Sequence[ChargeAnswer | KeyReused]:
        records = [_charge_record(charge) for charge in sorted(charges, key=lambda charge: charge.key)]
        made = await self._ledger.fetch(_ADD_CHARGES, *statements.columns_of(records, len(_CHARGE)))
        found = {record["key"]: record for record in made}
        if earlier := {charge.key for charge in charges} - found.keys():
            known = await self._ledger.fetch(_CHARGES_OF_KEYS, list(earlier))
            found |= {record["key"]: record for record in known}
        return [
            _answer(found[charge.key]) if _is_for(found[charge.key], charge) else KeyReused(KeyReused.__doc__)
            for charge in charges
        ]

    async def _commit_repayments(
        self, repayments: Sequence[Repayment]
    ) -> "Sequence[Repaid | NotRepaid | KeyReused | Postponed]":
        async with self._ledger() as tx:
            made, to_make = await _refunds_to_make(tx, repayments)
            records = list(to_make.values())
            for record in await tx.fetch(_ADD_REFUNDS, *statements.columns_of(records, len(_REFUND))):
                made[record["key"]] = record
        return [_repayment_answer(made.get(repayment.key), repayment) for repayment in repayments]


async def _refunds_to_make(
    tx: Transaction, repayments: Sequence[Repayment]
) -> tuple[dict[str, asyncpg.Record], dict[str, tuple[object, ...]]]:
    """Refunds that were made under these keys before, and rows of those to be made now, both by key.

    The charges are locked first, so that two who give back the same charge see one another's refunds.
    """
    charge_ids = sorted({repayment.charge_reference for repayment in repayments})
    charges = {record["id"]: record for record in await tx.fetch(_LOCK_CHARGES, charge_ids)}
    left = {charge_id: charge["amount"] for charge_id, charge in charges.items()}
    made: dict[str, asyncpg.Record] = {}
    keys = [repayment.key for repayment in repayments]
    await tx.execute(_END_PENDING, [repayment.refund_id for repayment in repayments])
    for record in await tx.fetch(_REFUNDS_KNOWN, charge_ids, keys):
        made[record["key"]] = record
        if record["charge_id"] in left and record["status"] != "failed":
            left[record["charge_id"]] -= record["amount"]
    to_make: dict[str, tuple[object, ...]] = {}
    for asked in repayments:
        charge_id = asked.charge_reference
        if asked.key in made or asked.key in to_make or left.get(charge_id, 0) < asked.amount:
            continue
        status = _REFUND_STATUSES.get(charges[charge_id]["payment_method"], "succeeded")
        if status != "failed":
            left[charge_id] -= asked.amount
        to_make[asked.key] = (_new_id("re"), asked.key, asked.refund_id, charge_id, asked.amount, status)
    return made, to_make


_REFUND_STATUSES: Final = {REFUNDS_FAIL: "failed", REFUNDS_PEND: "pending"}


def _charge_record(charge: Charge) -> tuple[object, ...]:
    code: str | None = limits.obstacle(charge.amount, charge.currency)
    if code is None and charge.payment_method not in PAYS:
        code = DECLINES.get(charge.payment_method, refusals.UNKNOWN_METHOD)
    return (
        _new_id("ch"),
        charge.key,
        charge.payment_id,
        charge.order_id,
        charge.amount,
        charge.currency,
        charge.payment_method,
        "failed" if code else "succeeded",
        code,
        charge.order_reference,
        charge.key_hash,
    )


def _is_for(record: asyncpg.Record, charge: Charge) -> bool:
    """Whether the charge made under this key was asked for with these parameters."""
    made_with = tuple(record[name] for name in _PARAMETERS)
    return made_with == tuple(getattr(charge, name) for name in _PARAMETERS)


def _answer(record: asyncpg.Record) -> ChargeAnswer:
    if record["status"] == "succeeded":
        return Captured(record["id"], record["amount"], record["currency"], record["created_at"])
    return refusals.declined(record["decline_code"])


def _repaid(record: asyncpg.Record) -> Repaid:
    return Repaid(record["id"], record["amount"], record["created_at"])


def _repayment_answer(
    record: asyncpg.Record | None, repayment: Repayment
) -> Repaid | NotRepaid | KeyReused | Postponed:
    if record is None:
        return NotRepaid(
            "There is no such charge, or less is left of it than is to be given back.", final=True
        )
    if (record["refund_id"], record["charge_id"], record["amount"]) != (
        repayment.refund_id,
        repayment.charge_reference,
        repayment.amount,
    ):
        return KeyReused(KeyReused.__doc__)
    if record["status"] == "failed":
        return NotRepaid(f"The refund {record['id']} has failed: the card is expired or cancelled.")
    if record["status"] == "pending":
        return Postponed(f"The refund {record['id']} is pending.")
    return _repaid(record)


def _new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex[:24]}"


@asynccontextmanager
async def connect(database_url: str, *, latency: float = 0.0) -> AsyncIterator[SimulatedProvider]:
    """The provider on its ledger, once `orderflow migrate` has made it; `latency` in seconds."""
    async with database.connect(database_url, pool=4, application="provider") as pool:
        await database.wait_for_schema(pool, revisions.head(HISTORY))
        provider = SimulatedProvider(Transactions(pool), latency=latency)
        try:
            yield provider
        finally:
            await provider.drain()
