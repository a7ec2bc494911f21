"""Settling: commits outcomes and deferrals in batches."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar
from uuid import UUID

from events.backoff import backoff
from events.errors import Unavailable
from events.leases import Deferral, Lease, Leases, RowT
from events.retry import RetryPolicy
from events.splitting import BatchFailures, commit_in_halves
from events.transaction import Transaction
from events.transactions import Transactions

OutcomeT = TypeVar("OutcomeT")

Settle: TypeAlias = Callable[[Transaction, Sequence[tuple[RowT, OutcomeT]]], Awaitable[None]]
"""Commits many outcomes with its transaction.

A row that another process settled meanwhile must change nothing there, and announce nothing.
"""
Ended: TypeAlias = tuple[Lease[RowT], OutcomeT] | Deferral

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Settling(Generic[RowT, OutcomeT]):
    """Commits ended work. Work that ends during one commit goes into the next one."""

    name: str
    leases: Leases[RowT]
    transactions: Transactions
    settle: Settle[RowT, OutcomeT]
    policy: RetryPolicy
    settled: Callable[[Sequence[UUID]], None]
    """Called with the ids of rows that are committed, or left until their claims expire."""
    ended: list[Ended[RowT, OutcomeT]] = field(default_factory=list, init=False)
    wake: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    """Set when work has ended, or `stopping` is set."""
    stopping: bool = field(default=False, init=False)

    async def run(self, performing: Collection[object]) -> None:
        """Commits until `stopping` is set, nothing is being performed, and nothing is left to commit."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            ended, self.ended = self.ended, []
            await self._commit_all(ended)
            self.settled([_id_of(item) for item in ended])
            if self.stopping and not performing and not self.ended:
                return

    async def _commit_all(self, ended: Sequence[Ended[RowT, OutcomeT]]) -> None:
        tries = 0
        failures = BatchFailures(self.transactions.ping)
        while ended:
            try:
                await commit_in_halves(ended, self._commit, self._set_aside, failures.blames_batch)
            except Unavailable as error:
                logger.warning("%s: outcomes wait for the database: %s", self.name, error)
                if self.stopping and tries > 3:  # the claims expire, and the rows are tried again
                    return
                await asyncio.sleep(backoff(tries, first=0.1, most=5.0))
                tries += 1
            else:
                return

    async def _commit(self, ended: Sequence[Ended[RowT, OutcomeT]]) -> Sequence[None]:
        outcomes = [(item[0].row, item[1]) for item in ended if not isinstance(item, Deferral)]
        deferrals = [item for item in ended if isinstance(item, Deferral)]

        async def commit(tx: Transaction) -> None:
            if outcomes:
                await self.settle(tx, outcomes)
            if deferrals:
                await self.leases.defer(tx, deferrals)

        await self.transactions.run(commit)
        return [None] * len(ended)

    async def _set_aside(self, item: Ended[RowT, OutcomeT], error: Exception) -> None:
        """An outcome that can't be settled is a defect."""
        logger.error("%s: %s can't be settled", self.name, _id_of(item), exc_info=error)
        if isinstance(item, Deferral):
            deferral = Deferral(item.id, "defect", repr(error), item.delay)
        else:
            tries = item[0].tries
            deferral = Deferral(
                item[0].row.id,
                "defect",
                repr(error),
                self.policy.pause(tries),
                self.policy.verdict("defect", tries),
                tries.attempts,
            )
        async with self.transactions() as tx:
            await self.leases.defer(tx, [deferral])


def _id_of(item: Ended[RowT, OutcomeT]) -> UUID:
    return item.id if isinstance(item, Deferral) else item[0].row.id
