"""Claims: the rows that a runner holds in memory. Claims them, renews the claims, and releases them."""

import logging
import math
import random
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Generic
from uuid import UUID

from events.errors import Unavailable
from events.killpoints import KillPoint, reach
from events.leases import LEASE_SECONDS, Lease, Leases, RowT
from events.outage import Outage, now
from events.transactions import Transactions

SWEEP_ROWS: Final = 500
"""Most rows that one sweep claims."""
RENEW_SECONDS: Final = 5.0
"""How often claims are renewed. Work begins only on a claim that lasts for as long."""
DUE_SECONDS: Final = 1.0
"""Deferring rows takes up to a second, so a row can come due this long after a pause ends."""

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Held(Generic[RowT]):
    """A row in memory."""

    lease: Lease[RowT]
    expires: float
    """When its claim ends: the loop's time."""

    @property
    def row(self) -> RowT:
        """The row."""
        return self.lease.row


@dataclass(eq=False)
class Claims(Generic[RowT]):
    """Holds at most `memory` rows: waiting, being performed, or ended and not committed yet.

    In an outage one row at a time is claimed, as a probe.
    """

    name: str
    leases: Leases[RowT]
    transactions: Transactions
    outage: Outage
    memory: int
    sweep_seconds: float
    changed: Callable[[], None]
    """Called when rows were added or dropped."""
    waiting: deque[Held[RowT]] = field(default_factory=deque, init=False)
    """Rows that are not begun yet, the longest waiting first."""
    held: set[UUID] = field(default_factory=set, init=False)
    slow_rows: int = field(default=0, init=False)
    """How many of the rows are in slow places. A probe does not wait for these."""
    next_sweep: float = field(default=-math.inf, init=False)
    next_renewal: float = field(default=-math.inf, init=False)
    _sweeping: bool = field(default=False, init=False)

    @property
    def room(self) -> int:
        """How many more new rows fit. A tenth of the memory stays free for rows from the table."""
        return max(0, self.memory - self.memory // 10 - len(self.held))

    @property
    def is_idle(self) -> bool:
        """Whether no row can be worked on before the next sweep."""
        left_alone = len(self.waiting) if self.outage.is_on else 0
        sweeps_later = not self._sweeping and now() < max(self.next_sweep, self.outage.paused_until)
        return len(self.held) == left_alone and sweeps_later

    @property
    def claimable(self) -> int:
        """How many more rows may be claimed."""
        room = self.memory - len(self.held)
        return min(room, 1 - len(self.held) + self.slow_rows) if self.outage.is_on else room

    def hold(self, leases: Sequence[Lease[RowT]], claimed_at: float) -> list[Held[RowT]]:
        """Adds rows that were claimed then (the loop's time), and returns those that are new."""
        if not self.held:
            self.next_renewal = now() + RENEW_SECONDS / 2
        held = [Held(lease, claimed_at + LEASE_SECONDS) for lease in leases if lease.row.id not in self.held]
        self.held.update(each.row.id for each in held)
        return held

    async def renew_if_due(self, performing: Collection[Held[RowT]]) -> None:
        """Renews the claims of rows that wait or are being performed, in one statement.

        In an outage waiting rows are not renewed: any process may claim them as its probe.
        """
        time = now()
        if time < self.next_renewal or not (self.waiting or performing):
            return
        self.next_renewal = time + RENEW_SECONDS
        candidates = [*performing, *(() if self.outage.is_on else self.waiting)]
        due = {
            held.row.id: held
            for held in candidates
            if time < held.expires < time + LEASE_SECONDS - RENEW_SECONDS / 2
        }
        if not due:
            return
        try:
            async with self.transactions() as tx:
                renewed = await self.leases.renew(tx, list(due))
        except Unavailable as error:
            logger.warning("%s: %d claims could not be renewed: %s", self.name, len(due), error)
            return
        for row_id in renewed:
            due[row_id].expires = tx.started + LEASE_SECONDS
        settled = due.keys() - renewed
        for held in [held for held in self.waiting if held.row.id in settled]:
            self.waiting.remove(held)
            self.held.discard(held.row.id)
        self.changed()

    async def sweep_if_due(self) -> None:
        """Claims rows that no process holds: left by a crash, due again, or more than memory had room for."""
        time = now()
        limit = min(self.claimable, SWEEP_ROWS)
        if time < max(self.next_sweep, self.outage.paused_until) or limit <= 0:
            return
        self.next_sweep = time + self.sweep_seconds * random.uniform(0.8, 1.2)  # noqa: S311  # no secret
        self._sweeping = True
        try:
            async with self.transactions() as tx:
                leases = await self.leases.claim(tx, limit)
        except Unavailable as error:
            logger.warning("%s: the table could not be swept: %s", self.name, error)
            return
        finally:
            self._sweeping = False
        if leases:
            reach(KillPoint.CLAIMED)
            held = self.hold(leases, tx.started)  # also when stopping: then they are released
            self.waiting.extendleft(reversed(held))  # they have waited longer than the rows in memory
            self.changed()
            if len(leases) == limit:
                self.next_sweep = time
        elif self.outage.is_on and len(self.held) == self.slow_rows:
            if time < self.outage.paused_until + DUE_SECONDS:
                self.next_sweep = time + DUE_SECONDS / 10
            else:  # no row is due that could probe: the outage counts as over
                self.outage.answered()
                self.changed()

    async def release_waiting(self) -> None:
        """Gives the claims of waiting rows back, for any process to take at once."""
        ids = [held.row.id for held in self.waiting]
        if ids:
            with suppress(Unavailable):  # the claims expire
                async with self.transactions() as tx:
                    await self.leases.release(tx, ids)
