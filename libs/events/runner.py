"""Runners: they do the work that leased rows stand for, and commit its outcome.

A row goes through three parts: `Claims` holds it in memory, `Performing` asks the outside about it, and
`Settling` commits what came of it. `Announcing` tells of rows that wait for long.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar
from uuid import UUID

from events.announcing import Announcing
from events.claims import Claims
from events.delays import DelayFactory
from events.leases import Lease, Leases, RowT
from events.outage import Outage, now
from events.performing import Performing
from events.retry import RetryPolicy
from events.settling import Settle, Settling
from events.transactions import Transactions

OutcomeT = TypeVar("OutcomeT")


class Runner(Generic[RowT, OutcomeT]):
    """Performs one kind of leased work with bounded concurrency and settles the outcomes in batches.

    `perform` calls the outside for one row, and what it raises decides what becomes of the row:
    - Unavailable: the other side is away. An outage begins: the runner pauses, then tries one row at a time
      until the other side answers. It counts against no row.
    - Postponed: the row is put off by its policy, and refused or dead when its patience has run out.
    - UnknownOutcome, or no answer within the deadline: put off and asked again, as often as its policy says.
    - anything else is a defect: logged, put off, and after some defects set aside as `dead`.

    Five different subjects in a row without an answer are an outage too (see `events.outage`).

    `settle` commits many outcomes in one transaction. A row that another process settled meanwhile must
    change nothing there, and announce nothing.

    At most `memory` rows are held at a time; their claims are renewed. Rows that waited longest go first.
    """

    def __init__(
        self,
        name: str,
        leases: Leases[RowT],
        transactions: Transactions,
        perform: Callable[[RowT], Awaitable[OutcomeT]],
        settle: Settle[RowT, OutcomeT],
        *,
        policy: RetryPolicy,
        delayed: DelayFactory[RowT] | None = None,
        subject: Callable[[RowT], str] = lambda row: str(row.id),
        concurrency: int = 64,
        slow_after: float = math.inf,
        slow_lane: int = 0,
        memory: int = 2000,
        sweep_seconds: float = 5.0,
    ) -> None:
        """`delayed` makes the event that announces that a row has waited for over a minute; None: none does.

        `subject` names what a row's failure may be the fault of; by default the row alone.

        Work that takes longer than `slow_after` seconds no longer counts towards `concurrency`, but towards
        the places of the `slow_lane`, as long as these last.
        """
        self.name = name
        self._outage = outage = Outage()
        self._claims = claims = Claims(
            name, leases, transactions, outage, memory, sweep_seconds, changed=self._notice
        )
        self._settling = Settling(name, leases, transactions, settle, policy, settled=self._drop)
        self._performing = Performing(
            *(name, perform, claims, self._settling, outage, policy, subject),
            *(concurrency, slow_after, slow_lane, self._notice),
        )
        self._announcing = delayed and Announcing(
            name, leases, transactions, outage, delayed, every=2 * sweep_seconds
        )
        self._stopping = False
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._idle = asyncio.Event()

    @property
    def room(self) -> int:
        """How many more rows may be made for it. In an outage they wait in their table, not in memory.

        A tenth of the memory is kept free for what waits in the table, so new rows never starve old ones.
        """
        return self._claims.room

    @property
    def has_room(self) -> bool:
        """Whether more work may be made for it."""
        return self._has_room.is_set()

    @property
    def takes_new(self) -> bool:
        """Whether it takes new rows into its memory right after their commit."""
        return self.has_room and not self._outage.is_on and not self._stopping

    @property
    def in_outage(self) -> bool:
        """Whether the last that was heard of the other side is that it is away."""
        return self._outage.is_on

    async def wait_for_room(self) -> None:
        """Returns when `has_room`."""
        await self._has_room.wait()

    def sweep_now(self) -> None:
        """Sweeps the table, and announces what waits, now instead of at the next scheduled time."""
        self._claims.next_sweep = -math.inf
        if self._announcing:
            self._announcing.next_at = -math.inf
        self._notice()

    async def wait_until_idle(self) -> None:
        """Returns when `run` has done what can be done now: what waits through an outage is left alone."""
        while not (self._claims.is_idle or self._stopping):
            self._idle.clear()
            await self._idle.wait()

    def offer(self, rows: Sequence[RowT], claimed_at: float) -> None:
        """Rows that one transaction committed, born claimed at `claimed_at` (the time of the loop).

        A runner that is full, or in an outage, takes none of them: they wait in their table until their
        claims run out.
        """
        if self.takes_new:
            self._claims.waiting.extend(self._claims.hold([Lease(row) for row in rows], claimed_at))
            self._notice()

    async def run(self) -> None:
        """Works until `stop`: then what is being performed is finished and settled, the rest given back.

        Whatever ended it, it may be run again.
        """
        tasks = self._performing.tasks
        settling = asyncio.create_task(self._settling.run(tasks), name=f"{self.name}: settle")
        try:
            while not self._stopping:
                self._performing.start()
                await self._claims.renew_if_due(tasks.values())
                if self._announcing:
                    await self._announcing.announce_if_due()
                await self._claims.sweep_if_due()
                if self._claims.is_idle:
                    self._idle.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._seconds_to_wait()):
                        await self._changed.wait()
                self._changed.clear()
                if settling.done():
                    break
            await self._performing.finish()
            self._settling.wake.set()
            await settling
            await self._claims.release_waiting()
        finally:
            parts = (settling, *tasks)
            for task in parts:
                task.cancel()
            await asyncio.gather(*parts, return_exceptions=True)  # they may hold connections
            self._claims.clear()
            self._settling.ended.clear()
            self._stopping = self._settling.stopping = False
            self._notice()

    def stop(self) -> None:
        """Asks `run` to come to its end."""
        self._stopping = self._settling.stopping = True
        self._idle.set()
        self._notice()

    def _notice(self) -> None:
        """Something changed: wakes `run`, and opens or closes the door for new work."""
        if self.room > 0 or self._stopping:
            self._has_room.set()
        else:
            self._has_room.clear()
        self._changed.set()

    def _drop(self, settled: Sequence[UUID]) -> None:
        self._claims.held.difference_update(settled)
        self._notice()

    def _seconds_to_wait(self) -> float | None:
        """Until there is something to do although nothing changes; None while only a change can tell."""
        claims, paused_until = self._claims, self._outage.paused_until
        times = []
        if claims.waiting and self._performing.has_place:
            times.append(paused_until)  # it may have ended since it was last looked at
        if claims.claimable > 0:
            times.append(max(claims.next_sweep, paused_until))
        if claims.waiting or self._performing.tasks:
            times.append(claims.next_renewal)
        if self._announcing:
            times.append(self._announcing.next_at)
        return max(0.0, min(times) - now()) if times else None
