"""Runners: perform the work that leased rows stand for, and commit its outcomes.

A row passes three parts: `Claims` holds it in memory, `Performing` calls the outside for it, and `Settling`
commits the outcome. `Announcing` publishes the delays of rows that wait too long.
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
    """Performs one kind of leased work with bounded concurrency, and settles the outcomes in batches.

    `perform` calls the outside for one row. An exception decides what happens to the row:
    - Unavailable: an outage begins. The runner pauses, then tries one row at a time until the other side
      answers. Does not raise `attempts`.
    - Postponed: deferred; after `policy.patience` its state becomes `policy.expired`. Payments and bookings
      wait without limit.
    - UnknownOutcome, or no answer within the deadline: deferred; dead after `policy.unknowns`. Raises
      `attempts` and `unknowns`.
    - any other exception is a defect: logged, deferred, and after several defects the row is `dead`.

    Five different subjects in a row without an answer are an outage too (see `events.outage`).

    At most `memory` rows are held at a time, and their claims renewed. The longest waiting rows go first.
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
        slow_after_seconds: float = math.inf,
        slow_places: int = 0,
        memory: int = 2000,
        sweep_seconds: float = 5.0,
    ) -> None:
        """`delayed` makes the ORDER_DELAYED event of a row that has waited for over a minute; None: no event.

        `subject` names the cause that rows may fail for together, such as a mail's recipient; by default each
        row is a subject of its own.

        Work that takes longer than `slow_after_seconds` moves from a place of `concurrency` to one of
        `slow_places`, while there is a free one.
        """
        self.name = name
        self._outage = outage = Outage()
        self._claims = claims = Claims(
            name, leases, transactions, outage, memory, sweep_seconds, changed=self._wake
        )
        self._settling = Settling(name, leases, transactions, settle, policy, settled=self._drop)
        self._performing = Performing(
            *(name, perform, claims, self._settling, outage, policy, subject),
            *(concurrency, slow_after_seconds, slow_places, self._wake),
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
        """How many more new rows fit into memory. A worker that holds back takes no messages while it is 0.

        A tenth of the memory is kept free for rows from the table, so new rows never starve old ones.
        """
        return self._claims.room

    @property
    def has_room(self) -> bool:
        """Whether `room` is above 0, or `run` is ending."""
        return self._has_room.is_set()

    @property
    def takes_new(self) -> bool:
        """Whether it takes new rows into memory right after their commit."""
        return self.has_room and not self._outage.is_on and not self._stopping

    @property
    def in_outage(self) -> bool:
        """Whether the other side is away."""
        return self._outage.is_on

    async def wait_for_room(self) -> None:
        """Returns when `has_room`."""
        await self._has_room.wait()

    def sweep_now(self) -> None:
        """Sweeps the table, and announces delays, now instead of at the next scheduled time."""
        self._claims.next_sweep = -math.inf
        if self._announcing:
            self._announcing.next_at = -math.inf
        self._wake()

    async def wait_until_idle(self) -> None:
        """Returns when no row is left that can be worked on now. In an outage rows stay waiting."""
        while not (self._claims.is_idle or self._stopping):
            self._idle.clear()
            await self._idle.wait()

    def offer(self, rows: Sequence[RowT], claimed_at: float) -> None:
        """Takes the rows of one committed transaction, born claimed at `claimed_at` (the loop's time).

        A runner that is full or in an outage takes none of them: they wait in their table until their claims
        expire.
        """
        if self.takes_new:
            self._claims.waiting.extend(self._claims.hold([Lease(row) for row in rows], claimed_at))
            self._wake()

    async def run(self) -> None:
        """Works until `stop`. Then rows being performed are finished and settled, waiting ones released.

        It may be run again, also after an exception.
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
            self._claims.waiting.clear()
            self._claims.held.clear()
            self._settling.ended.clear()
            self._stopping = self._settling.stopping = False
            self._wake()

    def stop(self) -> None:
        """Asks `run` to end."""
        self._stopping = self._settling.stopping = True
        self._idle.set()
        self._wake()

    def _wake(self) -> None:
        """Wakes `run` after a change, and updates `has_room`."""
        if self.room > 0 or self._stopping:
            self._has_room.set()
        else:
            self._has_room.clear()
        self._changed.set()

    def _drop(self, settled: Sequence[UUID]) -> None:
        self._claims.held.difference_update(settled)
        self._wake()

    def _seconds_to_wait(self) -> float | None:
        """Seconds until something is due without a change; None if only a change makes work."""
        claims, paused_until = self._claims, self._outage.paused_until
        times = []
        if claims.waiting and self._performing.has_place:
            times.append(paused_until)  # the pause may have ended since `start` looked
        if claims.claimable > 0:
            times.append(max(claims.next_sweep, paused_until))
        if claims.waiting or self._performing.tasks:
            times.append(claims.next_renewal)
        if self._announcing:
            times.append(self._announcing.next_at)
        return max(0.0, min(times) - now()) if times else None
