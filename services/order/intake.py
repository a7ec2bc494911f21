"""The intake: concurrent orders join one commit, and an idempotency key makes at most one order."""

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
from services.order.domain import Entry
from services.order.repository import Claim

DEADLINE_SECONDS: Final = 5.0
"""A caller has its answer by then, whatever the database does."""
MAX_WAITING: Final = 2000
"""Most callers that wait at a time: ten commits' worth. More are told at once to come back."""


class KeyReused(Exception):
    """The idempotency key belongs to another order: what was asked for with it first was different."""


class StillRunning(Exception):
    """Another request with this idempotency key has not come to its end yet."""


class IntakeFull(Unavailable):
    """As many orders wait to be accepted as may."""


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key, and the fingerprint of what is asked for with it."""

    key: str
    fingerprint: bytes

    @property
    def hash(self) -> str:
        """What the other services and the payment provider may know of the key."""
        return sha256(self.key.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Accepted:
    """An order as it was accepted, with the first line of its timeline; `replayed` when that was earlier."""

    order: Order
    entry: Entry
    replayed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    """What one caller waits for. Its ids are made before the first attempt, so repeating it is safe."""

    created: OrderCreated
    claim: Claim | None
    deadline: float

    def accepted(self) -> Accepted:
        return Accepted(self.created.data.order, Entry.of(self.created))


_Outcome: TypeAlias = Accepted | Exception
_CREATED: Final = type_of(OrderCreated)


class Intake:
    """Accepts orders: concurrent ones in one transaction, each with its own answer."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._group: GroupCommit[_Request, _Outcome] = GroupCommit(self._commit)
        self._waiting = 0

    async def accept(self, order: Order, key: Key | None = None) -> Accepted:
        """Returns when the order, the first line of its timeline and ORDER_CREATED are committed together.

        The order carries its key's hash. A key that made an order before gives that order again, or KeyReused
        when its fingerprint differs. While the database does not answer it is tried again. After
        DEADLINE_SECONDS Unavailable is raised: the order may have been accepted or not, and asking again
        under its key is safe. StillRunning is raised when all that stood in the way was another request with
        the key. IntakeFull is raised at once. Cancelling ends the wait; an order whose commit has not begun
        by then is not accepted.
        """
        if self._waiting >= MAX_WAITING:
            raise IntakeFull
        claim = Claim(key.key, key.fingerprint, order.id) if key else None
        if key:
            order = replace(order, key_hash=key.hash)
        deadline = asyncio.get_running_loop().time() + DEADLINE_SECONDS
        request = _Request(OrderCreated.of(Placed(order=order)), claim, deadline)
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
                    if not isinstance(obstacle, Unavailable):  # after that an own try may hold the key
                        obstacle = outcome
                    await asyncio.sleep(backoff(tries, first=0.05, most=0.5))
        except TimeoutError:
            raise obstacle or DatabaseUnavailable from None
        finally:
            self._waiting -= 1
        raise AssertionError("unreachable: the loop ends by returning or raising")

    async def drain(self) -> None:
        """Returns when everything that was submitted is committed or refused."""
        await self._group.drain()

    async def _commit(self, requests: Sequence[_Request]) -> Sequence[_Outcome]:
        """An outcome for each. Nobody waits for those past their deadline any more: they are left out."""
        now = asyncio.get_running_loop().time()
        waiting = [request for request in requests if request.deadline > now]
        outcomes = dict(
            zip(waiting, await commit_in_halves(waiting, self._commit_together, _refuse), strict=True)
            if waiting
            else ()
        )
        return [outcomes.get(request) or DatabaseUnavailable() for request in requests]

    async def _commit_together(self, requests: Sequence[_Request]) -> Sequence[_Outcome]:
        async def add(tx: Transaction) -> Sequence[_Outcome]:
            owners = await _claim_keys(tx, [request.claim for request in requests if request.claim])
            fresh = {
                request.created.subject: request.created
                for request in requests
                if request.claim is None or owners.get(request.claim.key) is request.claim
            }
            new = await repository.add(tx, fresh.values())
            tx.emit(*(fresh[order_id] for order_id in fresh if order_id in new))
            return await _outcomes(tx, requests, owners)

        return await self._transactions.run(add)


async def _refuse(_: _Request, error: Exception) -> _Outcome:
    return error


async def _claim_keys(tx: Transaction, claims: Sequence[Claim]) -> dict[str, Claim]:
    """Who has each key now: the first claim in the batch that names it, or one that was there before.

    A key that another process is claiming at this moment is missing.
    """
    if not claims:
        return {}
    first = {claim.key: claim for claim in reversed(claims)}
    taken = await repository.claim(tx, first.values())
    others = first.keys() - taken
    earlier = await repository.claimed(tx, others) if others else {}
    return {key: first[key] for key in taken} | earlier


async def _outcomes(
    tx: Transaction, requests: Sequence[_Request], owners: dict[str, Claim]
) -> list[_Outcome]:
    owned = [(request.claim, owners.get(request.claim.key)) for request in requests if request.claim]
    earlier = {owner.order_id for claim, owner in owned if owner and owner.order_id != claim.order_id}
    found = await repository.find(tx, earlier) if earlier else {}
    return [_outcome(request, owners, found) for request in requests]


def _outcome(
    request: _Request, owners: dict[str, Claim], found: dict[UUID, tuple[Order, list[Entry]]]
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
    order, entries = found[owner.order_id]
    [first] = [entry for entry in entries if entry.type == _CREATED]
    return Accepted(order, first, replayed=True)
