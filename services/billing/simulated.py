"""The simulated payment provider: a third party with a durable ledger of its own.

The outcome of a charge and of its refunds follows from the payment method, which is one of Stripe's own test
tokens (https://docs.stripe.com/testing), and from the amounts that can be charged (`events.limits`). The
ledger is in the schema `provider`, which only the provider's own role can reach. The provider commits to it
before it answers, in its own transaction; concurrent calls share one.

Idempotency: the same key with the same parameters gets the same answer, for ever; with other parameters it
raises KeyReused. So a lost answer is given again when the request is repeated. Description and recipient of a
charge decide nothing here, and are not stored.
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
from services.billing import declines
from services.billing.provider import (
    ChargeAnswer,
    ChargeCaptured,
    ChargeRequest,
    KeyVoid,
    ListedCharge,
    ListedRefund,
    RefundAnswer,
    RefundFailed,
    RefundRequest,
    RefundSucceeded,
)

METADATA: Final = MetaData()
HISTORY: Final = "services.billing:provider_migrations"
"""The ledger's migrations."""

CHARGES: Final = Table(
    "charges",
    METADATA,
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
"""Every charge that was requested; `status` is succeeded or failed."""

REFUNDS: Final = Table(
    "refunds",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("refund_id", UUID, nullable=False),
    Column("charge_id", Text, ForeignKey("charges.id"), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("status", Text, nullable=False, server_default="succeeded"),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    Index("refunds_charge_id", "charge_id"),
)
"""Every refund that was requested; `status` is succeeded, failed, or pending until it is requested again."""

REFUND_STATUSES: Final = {"pm_card_refundFail": "failed", "pm_card_pendingRefund": "pending"}
"""Cards that pay but whose refunds fail, or are pending at first: https://docs.stripe.com/testing#refunds"""

ACCEPTED: Final = frozenset(
    f"pm_card_{brand}"
    for brand in (
        "visa visa_debit mastercard mastercard_debit mastercard_prepaid amex discover diners jcb unionpay "
        "pendingRefund refundFail br mx ca de es fr gb it nl pt pl se ch jp au nz in sg us"
    ).split()
)
"""Tokens of cards that pay."""

DECLINE_CODES: Final[dict[str, str]] = {
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
"""Tokens of cards that are declined, with Stripe's code. No customer is present to authenticate."""


class KeyReused(Exception):
    """The idempotency key was used before, with other parameters."""


_PARAMETERS: Final = ("payment_id", "order_id", "amount", "currency", "payment_method")
_CHARGE: Final = ("id", "key", *_PARAMETERS, "status", "decline_code", "order_reference", "key_hash")
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
"""Most rows that are read at once."""
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
    """A `provider.ListingProvider` on a ledger of its own."""

    name = "simulated"

    def __init__(self, ledger: Transactions, *, latency: float = 0.0) -> None:
        """`latency` (seconds) passes before every charge and refund."""
        self._ledger = ledger
        self._latency = latency
        self._charges: GroupCommit[ChargeRequest, ChargeAnswer | KeyReused] = GroupCommit(
            self._commit_charges
        )
        self._refunds: GroupCommit[RefundRequest, RefundSucceeded | RefundFailed | KeyReused | Postponed] = (
            GroupCommit(self._commit_refunds)
        )

    async def charge(self, request: ChargeRequest) -> ChargeAnswer:
        """Charges once per key. Raises KeyReused."""
        await self._simulate_latency()
        answer = await self._charges.submit(request)
        if isinstance(answer, KeyReused):
            raise answer
        return answer

    async def look_up_charge(self, request: ChargeRequest) -> ChargeAnswer:
        """Finds the payment's charge; one that succeeded goes before those that failed."""
        records = await self._ledger.fetch(_CHARGES_OF_PAYMENT, request.payment_id)
        return _charge_outcome(records[0]) if records else KeyVoid()

    async def refund(self, request: RefundRequest) -> RefundAnswer:
        """Refunds once per key, and never more than was captured.

        Raises KeyReused, or Postponed while the refund is pending.
        """
        await self._simulate_latency()
        answer = await self._refunds.submit(request)
        if isinstance(answer, KeyReused | Postponed):
            raise answer
        return answer

    async def look_up_refund(self, request: RefundRequest) -> RefundAnswer:
        """Finds the refund if it was made. A pending one succeeds now."""
        async with self._ledger() as tx:
            await tx.execute(_END_PENDING, [request.refund_id])
            records = await tx.fetch(_REFUNDS_OF_ID, request.refund_id)
        return _refund_succeeded(records[0]) if records else KeyVoid()

    async def list_charges(self, since: datetime | None = None) -> AsyncGenerator[ListedCharge, None]:
        """See ProviderLists."""
        async for record in self._list(_LIST_CHARGES, since):
            yield ListedCharge(
                reference=record["id"],
                payment_id=record["payment_id"],
                order_id=record["order_id"],
                amount=record["amount"],
                currency=record["currency"],
                at=record["created_at"],
                order_reference=record["order_reference"],
                key_hash=record["key_hash"],
            )

    async def list_refunds(self, since: datetime | None = None) -> AsyncGenerator[ListedRefund, None]:
        """See ProviderLists."""
        async for record in self._list(_LIST_REFUNDS, since):
            yield ListedRefund(
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
        """Returns when no commit is under way any more."""
        await self._charges.drain()
        await self._refunds.drain()

    async def _simulate_latency(self) -> None:
        if self._latency:
            await asyncio.sleep(self._latency)

    async def _commit_charges(self, requests: Sequence[ChargeRequest]) -> Sequence[ChargeAnswer | KeyReused]:
        records = [_charge_record(request) for request in sorted(requests, key=lambda request: request.key)]
        made = await self._ledger.fetch(_ADD_CHARGES, *statements.columns_of(records, len(_CHARGE)))
        found = {record["key"]: record for record in made}
        if earlier := {request.key for request in requests} - found.keys():
            known = await self._ledger.fetch(_CHARGES_OF_KEYS, list(earlier))
            found |= {record["key"]: record for record in known}
        return [_charge_answer(found[request.key], request) for request in requests]

    async def _commit_refunds(
        self, requests: Sequence[RefundRequest]
    ) -> "Sequence[RefundSucceeded | RefundFailed | KeyReused | Postponed]":
        async with self._ledger() as tx:
            made, to_make = await _refunds_to_make(tx, requests)
            records = list(to_make.values())
            for record in await tx.fetch(_ADD_REFUNDS, *statements.columns_of(records, len(_REFUND))):
                made[record["key"]] = record
        return [_refund_answer(made.get(request.key), request) for request in requests]


async def _refunds_to_make(
    tx: Transaction, requests: Sequence[RefundRequest]
) -> tuple[dict[str, asyncpg.Record], dict[str, tuple[object, ...]]]:
    """Returns the refunds made under these keys before, and the rows of those to be made now, both by key.

    Locks the charges first, so that concurrent refunds of a charge see one another.
    """
    charge_ids = sorted({request.charge_reference for request in requests})
    charges = {record["id"]: record for record in await tx.fetch(_LOCK_CHARGES, charge_ids)}
    left = {charge_id: charge["amount"] for charge_id, charge in charges.items()}
    made: dict[str, asyncpg.Record] = {}
    keys = [request.key for request in requests]
    await tx.execute(_END_PENDING, [request.refund_id for request in requests])
    for record in await tx.fetch(_REFUNDS_KNOWN, charge_ids, keys):
        made[record["key"]] = record
        if record["charge_id"] in left and record["status"] != "failed":
            left[record["charge_id"]] -= record["amount"]
    to_make: dict[str, tuple[object, ...]] = {}
    for asked in requests:
        charge_id = asked.charge_reference
        if asked.key in made or asked.key in to_make or left.get(charge_id, 0) < asked.amount:
            continue
        status = REFUND_STATUSES.get(charges[charge_id]["payment_method"], "succeeded")
        if status != "failed":
            left[charge_id] -= asked.amount
        to_make[asked.key] = (_new_id("re"), asked.key, asked.refund_id, charge_id, asked.amount, status)
    return made, to_make


def _charge_record(request: ChargeRequest) -> tuple[object, ...]:
    code: str | None = limits.obstacle(request.amount, request.currency)
    if code is None and request.payment_method not in ACCEPTED:
        code = DECLINE_CODES.get(request.payment_method, declines.UNKNOWN_METHOD)
    return (
        _new_id("ch"),
        request.key,
        *(getattr(request, name) for name in _PARAMETERS),
        "failed" if code else "succeeded",
        code,
        request.order_reference,
        request.key_hash,
    )


def _charge_answer(record: asyncpg.Record, request: ChargeRequest) -> ChargeAnswer | KeyReused:
    if any(record[name] != getattr(request, name) for name in _PARAMETERS):
        return KeyReused(KeyReused.__doc__)
    return _charge_outcome(record)


def _charge_outcome(record: asyncpg.Record) -> ChargeAnswer:
    if record["status"] == "succeeded":
        return ChargeCaptured(record["id"], record["amount"], record["currency"], record["created_at"])
    return declines.card_declined(record["decline_code"])


def _refund_succeeded(record: asyncpg.Record) -> RefundSucceeded:
    return RefundSucceeded(record["id"], record["amount"], record["created_at"])


def _refund_answer(
    record: asyncpg.Record | None, request: RefundRequest
) -> RefundSucceeded | RefundFailed | KeyReused | Postponed:
    if record is None:
        return RefundFailed("There is no such charge, or less is left of it than the refund.", final=True)
    if (record["refund_id"], record["charge_id"], record["amount"]) != (
        request.refund_id,
        request.charge_reference,
        request.amount,
    ):
        return KeyReused(KeyReused.__doc__)
    if record["status"] == "failed":
        return RefundFailed(f"The refund {record['id']} has failed: the card is expired or cancelled.")
    if record["status"] == "pending":
        return Postponed(f"The refund {record['id']} is pending.")
    return _refund_succeeded(record)


def _new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex[:24]}"


@asynccontextmanager
async def connect(database_url: str, *, latency: float = 0.0) -> AsyncIterator[SimulatedProvider]:
    """Opens the ledger, once `orderflow migrate` has made it. `latency` is in seconds."""
    async with database.connect(database_url, pool=4, application="provider") as pool:
        await database.wait_for_schema(pool, revisions.head(HISTORY))
        provider = SimulatedProvider(Transactions(pool), latency=latency)
        try:
            yield provider
        finally:
            await provider.drain()
