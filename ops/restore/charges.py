"""Charges that the provider has and billing does not: finds them, decides about each and makes refunds."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final, TypeVar
from uuid import UUID

from events import interventions, statements
from events.errors import Postponed, Unavailable, UnknownOutcome
from events.interventions import Subject
from ops.owner_database import BATCH, OwnerDatabase
from services.billing import recovered_charges
from services.billing.provider import (
    KeyVoid,
    ListedCharge,
    ListedRefund,
    ListingProvider,
    RefundFailed,
    RefundRequest,
    RefundSucceeded,
)
from services.billing.recovered_charges import ChargeToRefund, RecoveredCharge

CHUNK: Final = 1000
"""Charges or refunds that are compared by one statement."""
CONCURRENT_REFUNDS: Final = 16
PROGRESS_EVERY: Final = 10_000
"""Progress is reported after this many charges or refunds."""

BY_HAND: Final = "by hand"
"""Stored instead of the provider's id: a person has refunded the charge at the provider."""

_CAUSES: Final = """
    SELECT made.reference, o.id IS NOT NULL AS ordered, p.id IS NOT NULL AS has_payment,
        (o.total, o.currency) IS NOT DISTINCT FROM (made.amount, made.currency) AS fits,
        (SELECT again.order_id FROM (
                SELECT order_id, encode(sha256(convert_to(key, 'UTF8')), 'hex') AS hash
                FROM "order".idempotency_keys) again
            JOIN billing.payments paid ON paid.order_id = again.order_id AND paid.state <> 'declined'
            WHERE again.hash = made.key_hash LIMIT 1) AS paid_again
    FROM unnest($1::text[], $2::uuid[], $3::text[], $4::bigint[], $5::text[])
        AS made (reference, order_id, key_hash, amount, currency)
    LEFT JOIN "order".orders o ON o.id = made.order_id
    LEFT JOIN billing.payments p ON p.order_id = made.order_id"""
_UNKNOWN_REFUNDS: Final = """
    SELECT made.reference, p.order_id
    FROM unnest($1::text[], $2::text[], $3::uuid[]) AS made (reference, charge, refund_id)
    JOIN billing.payments p ON p.provider_reference = made.charge
    WHERE NOT EXISTS (SELECT FROM billing.refunds r
        WHERE r.id = made.refund_id OR r.provider_reference = made.reference)"""

T = TypeVar("T")
Progress = Callable[[str], None]


class RefundRefused(Exception):
    """The provider refuses a refund; the message says why."""


class Cause(Enum):
    """Why no payment has a charge; the value is the sentence that is printed."""

    ORDER_LOST = "its order is lost"
    PAYMENT_LOST = "its order is here, and its payment is lost"
    PLACED_AGAIN = "its order is lost, and was placed and paid again with the same Idempotency-Key"
    PAID_OTHERWISE = "its order has another payment"


@dataclass(frozen=True, slots=True)
class UnknownCharge:
    """A charge that belongs to no payment of billing."""

    charge: ListedCharge
    cause: Cause
    remaining: int
    """The amount that is not refunded yet, in minor units."""
    kept: bool = False
    """Whether an earlier run decided to keep it."""

    def decision(self, *, leave: bool, named: bool) -> RecoveredCharge | None:
        """The charge with its decision; None if an earlier one stands. `named`: by --order.

        A charge whose order is here without its payment is kept as that payment. A customer who has paid
        twice gets one charge refunded, also with `leave`.
        """
        match self.cause:
            case Cause.PAYMENT_LOST:
                return None if self.kept else RecoveredCharge(self.charge, "kept")
            case Cause.ORDER_LOST if self.remaining:
                if self.kept and (leave or not named):
                    return None
                return RecoveredCharge(self.charge, "kept") if leave else self._refund
            case _:
                return self._refund

    @property
    def _refund(self) -> RecoveredCharge:
        return RecoveredCharge(self.charge, "refund", self.remaining)


@dataclass(frozen=True, slots=True)
class UnknownRefund:
    """A refund of one of billing's payments for which billing has no row."""

    refund: ListedRefund
    order_id: UUID


@dataclass(frozen=True, slots=True)
class Comparison:
    """The provider's charges and refunds that billing does not know."""

    charges: Sequence[UnknownCharge]
    refunds: Sequence[UnknownRefund]
    refunded: "Counter[str]"
    """The amount that was refunded of each charge, in minor units."""


async def compare(
    owned: OwnerDatabase, provider: ListingProvider, since: datetime | None, progress: Progress
) -> Comparison:
    """Compares the provider's charges and refunds since then with billing's rows.

    Each page is read from the provider before billing's rows. Billing commits a row before it asks the
    provider, so a charge or refund without a row was lost, and is not just new.
    """
    refunded: Counter[str] = Counter()
    refunds: list[UnknownRefund] = []
    async for refunds_made in _in_chunks(provider.list_refunds(since), "refunds", progress):
        for refund in refunds_made:
            refunded[refund.charge_reference] += refund.amount
        refunds += await _unknown_refunds(owned, refunds_made)
    charges: list[UnknownCharge] = []
    async for made in _in_chunks(provider.list_charges(since), "charges", progress):
        async with owned.as_service("billing") as tx:
            unknown = await recovered_charges.find_unknown(tx, made)
        charges += await _unknown_charges(
            owned, [charge for charge in made if charge.reference in unknown], refunded, kept=False
        )
    async with owned.as_service("billing") as tx:
        kept = await recovered_charges.unassigned(tx, provider.name)
    charges += await _unknown_charges(owned, kept, refunded, kept=True)
    return Comparison(_at_most_one_each(charges), refunds, refunded)


async def record_decisions(
    owned: OwnerDatabase, provider: str, decisions: Sequence[RecoveredCharge], *, actor: str, note: str | None
) -> None:
    """Stores the decisions, each with its intervention."""
    for start in range(0, len(decisions), BATCH):
        batch = decisions[start : start + BATCH]
        async with owned.as_service("billing") as tx:
            written = await recovered_charges.record_decisions(tx, provider, batch)
            subjects = [
                Subject(
                    id=each.charge.payment_id,
                    type="charge",
                    order_id=each.charge.order_id,
                    reason=f"{each.decision}: {each.charge.reference}",
                )
                for each in batch
                if each.charge.reference in written
            ]
            await interventions.record(tx, "restore", subjects, actor=actor, note=note)


async def make_refunds(
    owned: OwnerDatabase, provider: ListingProvider, refunded: "Counter[str]", progress: Progress
) -> list[str]:
    """Makes all refunds that were decided, by earlier runs too; returns a sentence for each that failed.

    Each charge has its own key, so a refund whose answer was lost is not made twice. Raises Unavailable.
    """
    async with owned.as_service("billing") as tx:
        waiting = await recovered_charges.refunds_to_make(tx, provider.name)
    failures: list[str] = []
    slots = asyncio.Semaphore(CONCURRENT_REFUNDS)
    done = 0

    async def one(giving: ChargeToRefund) -> None:
        nonlocal done
        async with slots:
            try:
                reference = await _refund(provider, giving)
            except Unavailable:
                raise
            except Exception as error:  # noqa: BLE001  # the provider's answer is reported to the operator
                undecided = isinstance(error, UnknownOutcome | Postponed)
                if undecided or refunded[giving.charge] < giving.charged:
                    failures.append(f"{giving.charge} of order {giving.order_id}: {error}")
                    return
                reference = BY_HAND
            async with owned.as_service("billing") as tx:
                await recovered_charges.record_refund(tx, giving.charge, reference)
            done += 1
            if done % 100 == 0:
                progress(f"{done} of {len(waiting)} charges are refunded …")

    try:
        async with asyncio.TaskGroup() as group:
            for giving in waiting:
                group.create_task(one(giving))
    except* Unavailable as away:
        raise Unavailable(str(away.exceptions[0])) from away
    return failures


async def _refund(provider: ListingProvider, giving: ChargeToRefund) -> str:
    """Makes one refund and returns the provider's id of it.

    Raises RefundRefused, or without a definite answer UnknownOutcome, Postponed or Unavailable.
    """
    answer = await provider.refund(
        RefundRequest(
            key=str(giving.refund_id),
            refund_id=giving.refund_id,
            order_id=giving.order_id,
            charge_reference=giving.charge,
            amount=giving.amount,
            currency=giving.currency,
        )
    )
    match answer:
        case RefundSucceeded(reference):
            return reference
        case RefundFailed(reason):
            raise RefundRefused(reason)
        case KeyVoid():
            raise UnknownOutcome("The provider has not made the refund yet.")


async def _in_chunks(listing: AsyncIterator[T], what: str, progress: Progress) -> AsyncIterator[list[T]]:
    chunk: list[T] = []
    read = 0
    async for each in listing:
        chunk.append(each)
        read += 1
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
        if read % PROGRESS_EVERY == 0:
            progress(f"{read:,} {what} of the provider are compared …")
    if chunk:
        yield chunk


async def _unknown_charges(
    owned: OwnerDatabase, charges: Sequence[ListedCharge], refunded: "Counter[str]", *, kept: bool
) -> list[UnknownCharge]:
    if not charges:
        return []
    rows = [(c.reference, c.order_id, c.key_hash, c.amount, c.currency) for c in charges]
    async with owned.transactions() as tx:
        records = await tx.fetch(_CAUSES, *statements.columns_of(rows, 5))
    by_reference = {record["reference"]: record for record in records}
    found: list[UnknownCharge] = []
    for charge in charges:
        record = by_reference[charge.reference]
        if not record["ordered"]:
            cause = Cause.PLACED_AGAIN if record["paid_again"] else Cause.ORDER_LOST
        elif record["has_payment"] or not record["fits"]:
            cause = Cause.PAID_OTHERWISE
        else:
            cause = Cause.PAYMENT_LOST
        remaining = max(0, charge.amount - refunded[charge.reference])
        found.append(UnknownCharge(charge, cause, remaining, kept=kept))
    return found


def _at_most_one_each(charges: Sequence[UnknownCharge]) -> list[UnknownCharge]:
    """The charges; of several for one order or one Idempotency-Key, only the first may still pay."""
    paying: set[UUID | str] = set()
    found: list[UnknownCharge] = []
    for each in sorted(charges, key=lambda each: (not each.kept, each.charge.at)):
        charge, cause = each.charge, each.cause
        payer: UUID | str | None = None
        if cause is Cause.PAYMENT_LOST:
            payer = charge.order_id
        elif cause is Cause.ORDER_LOST and each.remaining:
            payer = charge.key_hash
        if payer in paying:
            again = Cause.PAID_OTHERWISE if cause is Cause.PAYMENT_LOST else Cause.PLACED_AGAIN
            each = UnknownCharge(charge, again, each.remaining, kept=each.kept)  # noqa: PLW2901
        elif payer is not None:
            paying.add(payer)
        found.append(each)
    return sorted(found, key=lambda each: each.charge.at)


async def _unknown_refunds(owned: OwnerDatabase, refunds: Collection[ListedRefund]) -> list[UnknownRefund]:
    by_reference = {refund.reference: refund for refund in refunds}
    rows = [(refund.reference, refund.charge_reference, refund.refund_id) for refund in refunds]
    async with owned.transactions() as tx:
        records = await tx.fetch(_UNKNOWN_REFUNDS, *statements.columns_of(rows, 3))
    return [UnknownRefund(by_reference[record["reference"]], record["order_id"]) for record in records]
