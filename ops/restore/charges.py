"""Charges that the provider has and our records have not: what they are, and what becomes of each."""

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
"""How many of the provider's charges are compared at a time."""
TOGETHER: Final = 16
"""Most refunds under way at a time."""
TELL_EVERY: Final = 10_000
"""After how many charges or refunds that were read the progress is told."""

BY_HAND: Final = "by hand"
"""In place of the provider's id: a person has given the charge back at the provider."""

_SITUATIONS: Final = """
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
Tell = Callable[[str], None]


class NotGivenBack(Exception):
    """The provider refuses to give a charge back; the message says why."""


class Situation(Enum):
    """Why our records do not know a charge. The value says it to a person."""

    LOST = "its order is lost"
    WAITING = "its order is here, and its payment is lost"
    REPEATED = "its order is lost, and was placed and paid again with the same Idempotency-Key"
    SURPLUS = "its order has another payment"


@dataclass(frozen=True, slots=True)
class Found:
    """A charge that belongs to no payment of ours."""

    charge: ListedCharge
    situation: Situation
    left: int
    """What of it was not given back, in minor units."""
    kept: bool = False
    """Whether an earlier run has kept it."""

    def decided(self, *, leave: bool, named: bool) -> RecoveredCharge | None:
        """What is to become of it; None when that was decided before. `named`: a person has named its order.

        The charge of an order that is here pays for it. Whoever has paid again gets the money back, whatever
        is asked for.
        """
        match self.situation:
            case Situation.WAITING:
                return None if self.kept else RecoveredCharge(self.charge, "kept")
            case Situation.LOST if self.left:
                if self.kept and (leave or not named):
                    return None
                return RecoveredCharge(self.charge, "kept") if leave else self._given_back
            case _:
                return self._given_back

    @property
    def _given_back(self) -> RecoveredCharge:
        return RecoveredCharge(self.charge, "refund", self.left)


@dataclass(frozen=True, slots=True)
class FoundRefund:
    """A refund of a payment of ours that billing has no row for."""

    refund: ListedRefund
    order_id: UUID


@dataclass(frozen=True, slots=True)
class Findings:
    """All that the provider has and our records have not."""

    charges: Sequence[Found]
    refunds: Sequence[FoundRefund]
    refunded: "Counter[str]"
    """What was given back of each charge, in minor units."""


async def find(
    owned: OwnerDatabase, provider: ListingProvider, since: datetime | None, tell: Tell
) -> Findings:
    """Compares the provider's charges and refunds since then with the records.

    The provider is asked first: what it tells of has its row in billing's tables since before it was asked,
    unless that row was lost.
    """
    refunded: Counter[str] = Counter()
    refunds: list[FoundRefund] = []
    async for made_back in _in_chunks(provider.list_refunds(since), "refunds", tell):
        for refund in made_back:
            refunded[refund.charge_reference] += refund.amount
        refunds += await _unknown_refunds(owned, made_back)
    charges: list[Found] = []
    async for made in _in_chunks(provider.list_charges(since), "charges", tell):
        async with owned.as_service("billing") as tx:
            unknown = await recovered_charges.find_unknown(tx, made)
        charges += await _found(
            owned, [charge for charge in made if charge.reference in unknown], refunded, kept=False
        )
    async with owned.as_service("billing") as tx:
        kept = await recovered_charges.unassigned(tx, provider.name)
    charges += await _found(owned, kept, refunded, kept=True)
    return Findings(_one_each(charges), refunds, refunded)


async def decide(
    owned: OwnerDatabase, provider: str, decisions: Sequence[RecoveredCharge], *, actor: str, note: str | None
) -> None:
    """Writes the decisions down, each with its record."""
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


async def give_back(
    owned: OwnerDatabase, provider: ListingProvider, refunded: "Counter[str]", tell: Tell
) -> list[str]:
    """Gives back what was decided to be, also by an earlier run; says why for each that could not be.

    Each charge has its own key, so a refund that was made while nobody learned of it is not made again.
    Raises Unavailable.
    """
    async with owned.as_service("billing") as tx:
        waiting = await recovered_charges.refunds_to_make(tx, provider.name)
    failures: list[str] = []
    slots = asyncio.Semaphore(TOGETHER)
    done = 0

    async def one(giving: ChargeToRefund) -> None:
        nonlocal done
        async with slots:
            try:
                reference = await _give_back_one(provider, giving)
            except Unavailable:
                raise
            except Exception as error:  # noqa: BLE001  # whatever the provider says is for a person
                undecided = isinstance(error, UnknownOutcome | Postponed)
                if undecided or refunded[giving.charge] < giving.charged:
                    failures.append(f"{giving.charge} of order {giving.order_id}: {error}")
                    return
                reference = BY_HAND
            async with owned.as_service("billing") as tx:
                await recovered_charges.record_refund(tx, giving.charge, reference)
            done += 1
            if done % 100 == 0:
                tell(f"{done} of {len(waiting)} charges are given back …")

    try:
        async with asyncio.TaskGroup() as group:
            for giving in waiting:
                group.create_task(one(giving))
    except* Unavailable as away:
        raise Unavailable(str(away.exceptions[0])) from away
    return failures


async def _give_back_one(provider: ListingProvider, giving: ChargeToRefund) -> str:
    """The provider's own id of the refund.

    Raises NotGivenBack; or what is no definite answer: UnknownOutcome, Postponed, Unavailable.
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
            raise NotGivenBack(reason)
        case KeyVoid():
            raise UnknownOutcome("The provider has done nothing yet.")


async def _in_chunks(listing: AsyncIterator[T], what: str, tell: Tell) -> AsyncIterator[list[T]]:
    chunk: list[T] = []
    read = 0
    async for each in listing:
        chunk.append(each)
        read += 1
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
        if read % TELL_EVERY == 0:
            tell(f"{read:,} {what} of the provider are compared …")
    if chunk:
        yield chunk


async def _found(
    owned: OwnerDatabase, charges: Sequence[ListedCharge], refunded: "Counter[str]", *, kept: bool
) -> list[Found]:
    if not charges:
        return []
    rows = [(c.reference, c.order_id, c.key_hash, c.amount, c.currency) for c in charges]
    async with owned.transactions() as tx:
        records = await tx.fetch(_SITUATIONS, *statements.columns_of(rows, 5))
    by_reference = {record["reference"]: record for record in records}
    found: list[Found] = []
    for charge in charges:
        record = by_reference[charge.reference]
        if not record["ordered"]:
            situation = Situation.REPEATED if record["paid_again"] else Situation.LOST
        elif record["has_payment"] or not record["fits"]:
            situation = Situation.SURPLUS
        else:
            situation = Situation.WAITING
        left = max(0, charge.amount - refunded[charge.reference])
        found.append(Found(charge, situation, left, kept=kept))
    return found


def _one_each(charges: Sequence[Found]) -> list[Found]:
    """The charges, of which at most one pays for an order that is here, and at most one for a repeat."""
    paying: set[UUID | str] = set()
    found: list[Found] = []
    for each in sorted(charges, key=lambda each: (not each.kept, each.charge.at)):
        charge, situation = each.charge, each.situation
        payer: UUID | str | None = None
        if situation is Situation.WAITING:
            payer = charge.order_id
        elif situation is Situation.LOST and each.left:
            payer = charge.key_hash
        if payer in paying:
            again = Situation.SURPLUS if situation is Situation.WAITING else Situation.REPEATED
            each = Found(charge, again, each.left, kept=each.kept)  # noqa: PLW2901
        elif payer is not None:
            paying.add(payer)
        found.append(each)
    return sorted(found, key=lambda each: each.charge.at)


async def _unknown_refunds(owned: OwnerDatabase, refunds: Collection[ListedRefund]) -> list[FoundRefund]:
    by_reference = {refund.reference: refund for refund in refunds}
    rows = [(refund.reference, refund.charge_reference, refund.refund_id) for refund in refunds]
    async with owned.transactions() as tx:
        records = await tx.fetch(_UNKNOWN_REFUNDS, *statements.columns_of(rows, 3))
    return [FoundRefund(by_reference[record["reference"]], record["order_id"]) for record in records]
