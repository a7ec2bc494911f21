"""Accepts orders: concurrent ones share a commit, and an idempotency key makes at most one order."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from typing import Final, TypeAlias
from uuid import UUID

from msgspec.structs import replace

from events.backoff import backoff
from events.contracts import Order, OrderCreated, Placed, type_of
from events.errors import DatabaseUnavailable, Unavailable
from events.group_commit import GroupCommit
from events.splitting import commit_in_halves
from events.transaction import Transaction
from events.transactions import Transactions
from services.order import repository
from services.order.domain import TimelineEntry
from services.order.repository import KeyClaim

DEADLINE_SECONDS: Final = 5.0
"""Every caller is answered within this time, even if the database does not respond."""
MAX_WAITING: Final = 2000
"""Most callers that wait at a time, as many as ten commits hold. Further callers get IntakeFull at once."""


class KeyReused(Exception):
    """The idempotency key was first used for a different order."""


class StillRunning(Exception):
    """Another request with this idempotency key has not finished yet."""


class IntakeFull(Unavailable):
    """Too many orders are waiting to be accepted."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """An idempotency key, and the fingerprint of the order that it was sent with."""

    key: str
    fingerprint: bytes

    @property
    def hash(self) -> str:
        """The key's hash. Other services and the payment provider see this instead of the key."""
        return sha256(self.key.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted order and the first entry of its timeline. `replayed`: an earlier request made it."""

    order: Order
    first_entry: TimelineEntry
    replayed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    """The request of one waiting caller. Its ids are made before the first attempt, so a retry is safe."""

    created: OrderCreated
    claim: KeyClaim | None
    deadline: float

    def accepted(self) -> Accepted:
        return Accepted(self.created.data.order, TimelineEntry.of(self.created))


_Outcome: TypeAlias = Accepted | Exception
_CREATED: Final = type_of(OrderCreated)


class Intake:
    """Accepts concurrent orders in one transaction, each with an outcome of its own (group commit)."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._group: GroupCommit[_Request, _Outcome] = GroupCommit(self._commit_group)
        self._waiting = 0

    async def accept(self, placed: Placed, key: IdempotencyKey | None = None) -> Accepted:
        """Returns when the order, the first line of its timeline and ORDER_CREATED are committed together.

        The order carries its key's hash. If the key has made an order before, that order is returned. While
        the database does not answer, the intake retries. Cancelling ends the wait; an order whose commit has
        not begun by then is not accepted.

        Raises:
            KeyReused: the key has made an order with another fingerprint.
            Unavailable: no answer within DEADLINE_SECONDS. The order may have been accepted or not; asking
                again under the same key is safe.
            StillRunning: for all of DEADLINE_SECONDS another request with the key was unfinished.
            IntakeFull: at once, if MAX_WAITING callers wait already.
        """
        if self._waiting >= MAX_WAITING:
            raise IntakeFull
        claim = KeyClaim(key.key, key.fingerprint, placed.order.id) if key else None
        if key:
            placed = replace(placed, order=replace(placed.order, key_hash=key.hash))
        deadline = asyncio.get_running_loop().time() + DEADLINE_SECONDS
        request = _Request(OrderCreated.of(placed), claim, deadline)
        obstacle: Exception | None = None
        self._waiting += 1
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                for tries in count():
                    outcome: _Outcome
                    try:
                        outcome = await self._group.submit(request)
                    except Unavailable as error:
                        outcome = error
                    if isinstance(outcome, Accepted):
                        return outcome
                    if not isinstance(outcome, Unavailable | StillRunning):
                        raise outcome
                    if not isinstance(obstacle, Unavailable):  # then a running request may be ours
                        obstacle = outcome
                    await asyncio.sleep(backoff(tries, first=0.05, most=0.5))
        except TimeoutError:
            raise obstacle or DatabaseUnavailable from None
        finally:
            self._waiting -= 1
        raise AssertionError("unreachable: the loop ends by returning or raising")

    async def find_earlier(self, key: IdempotencyKey) -> Accepted | None:
        """The order that an earlier request made with this key and this fingerprint, or None.

        An order that an older version accepted may break a rule of this one; repeating it is still a replay.
        """
        async with self._transactions() as tx:
            claim = (await repository.find_claims(tx, [key.key])).get(key.key)
            if claim is None or claim.fingerprint != key.fingerprint:
                return None
            return _replayed(claim, await repository.find(tx, [claim.order_id]))

    async def drain(self) -> None:
        """Waits until everything submitted is committed or refused."""
        await self._group.drain()

    async def _commit_group(self, requests: Sequence[_Request]) -> Sequence[_Outcome]:
        """Returns an outcome for each request. Skips requests past their deadline: their callers are gone."""
        now = asyncio.get_running_loop().time()
        waiting = [request for request in requests if request.deadline > now]
        outcomes = (
            await commit_in_halves(waiting, self._commit_in_one_transaction, _refuse) if waiting else []
        )
        by_request = dict(zip(waiting, outcomes, strict=True))
        return [by_request.get(request) or DatabaseUnavailable() for request in requests]

    async def _commit_in_one_transaction(self, requests: Sequence[_Request]) -> Sequence[_Outcome]:
        return await self._transactions.run(lambda tx: _accept_all(tx, requests))


async def _refuse(_: _Request, error: Exception) -> _Outcome:
    return error


async def _accept_all(tx: Transaction, requests: Sequence[_Request]) -> Sequence[_Outcome]:
    """Writes the new orders, and ORDER_CREATED for each into the outbox."""
    owners = await _claim_keys(tx, [request.claim for request in requests if request.claim])
    created = {
        request.created.subject: request.created
        for request in requests
        if request.claim is None or owners.get(request.claim.key) is request.claim
    }
    new = await repository.add(tx, created.values())
    tx.emit(*(event for order_id, event in created.items() if order_id in new))
    return await _outcomes(tx, requests, owners)


async def _claim_keys(tx: Transaction, claims: Sequence[KeyClaim]) -> dict[str, KeyClaim]:
    """Returns the claim that owns each key: an earlier one, or the first one in the batch.

    Leaves out keys that another process is claiming at the same time.
    """
    if not claims:
        return {}
    first = {claim.key: claim for claim in reversed(claims)}
    claimed = await repository.claim_keys(tx, first.values())
    others = first.keys() - claimed
    earlier = await repository.find_claims(tx, others) if others else {}
    return {key: first[key] for key in claimed} | earlier


async def _outcomes(
    tx: Transaction, requests: Sequence[_Request], owners: dict[str, KeyClaim]
) -> list[_Outcome]:
    owned = [(request.claim, owners.get(request.claim.key)) for request in requests if request.claim]
    earlier = {owner.order_id for claim, owner in owned if owner and owner.order_id != claim.order_id}
    found = await repository.find(tx, earlier) if earlier else {}
    return [_outcome(request, owners, found) for request in requests]


def _outcome(
    request: _Request, owners: dict[str, KeyClaim], found: dict[UUID, tuple[Order, list[TimelineEntry]]]
) -> _Outcome:
    claim = request.claim
    if claim is None:
        return request.accepted()
    owner = owners.get(claim.key)
    if owner is None:
        return StillRunning()
    if owner.order_id == claim.order_id:
        return request.accepted()
    if owner.fingerprint != claim.fingerprint:
        return KeyReused()
    return _replayed(owner, found)


def _replayed(owner: KeyClaim, found: dict[UUID, tuple[Order, list[TimelineEntry]]]) -> Accepted:
    order, entries = found[owner.order_id]
    [first_entry] = [entry for entry in entries if entry.type == _CREATED]
    return Accepted(order, first_entry, replayed=True)
