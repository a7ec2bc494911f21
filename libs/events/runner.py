"""Runners: they do the work that leased rows stand for, and commit its outcome."""

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, Generic, TypeVar
from uuid import UUID

from events.backoff import backoff
from events.commit import Transactions, commit_in_halves
from events.errors import Unavailable, UnknownOutcome
from events.killpoints import KillPoint, reach
from events.leases import LEASE_SECONDS, Deferral, Leased, Leases
from events.transaction import Transaction

RowT = TypeVar("RowT", bound=Leased)
OutcomeT = TypeVar("OutcomeT")

PERFORM_SECONDS: Final = 10.0
"""Deadline of one piece of work. With the time its commit takes it ends before the claim does."""
SWEEP_ROWS: Final = 500
"""Most rows that are claimed at once."""
LONGEST_PAUSE: Final = 10.0
"""Most seconds between two tries in an outage."""
MOMENT_SECONDS: Final = 1.0
"""How long after the pause a row that was put off may fall due: as long as putting it off may take."""

logger = logging.getLogger(__name__)


class Runner(Generic[RowT, OutcomeT]):
    """Performs one kind of leased work with bounded concurrency and settles the outcomes in batches.

    `perform` calls the outside for one row, and what it raises decides what becomes of the row:
    - Unavailable is an outage: nothing is counted, the runner pauses, then tries one row at a time until one
      succeeds.
    - UnknownOutcome, or no answer within the deadline: put off and asked again, as often as it takes.
    - anything else is a defect: logged, put off, and after some failures set aside as `dead`.

    `settle` commits many outcomes in one transaction. A row that another process settled meanwhile must
    change nothing there, and announce nothing.
    """

    def __init__(
        self,
        name: str,
        leases: Leases[RowT],
        transactions: Transactions,
        perform: Callable[[RowT], Awaitable[OutcomeT]],
        settle: Callable[[Transaction, Sequence[tuple[RowT, OutcomeT]]], Awaitable[None]],
        *,
        concurrency: int = 64,
        memory: int = 2000,
        sweep_seconds: float = 5.0,
        perform_seconds: float = PERFORM_SECONDS,
    ) -> None:
        self.name = name
        self._leases = leases
        self._transactions = transactions
        self._perform = perform
        self._settle = settle
        self._concurrency = concurrency
        self._memory = memory
        self._sweep_seconds = sweep_seconds
        self._perform_seconds = perform_seconds
        self._waiting: deque[tuple[RowT, float]] = deque()
        self._performing: set[asyncio.Task[None]] = set()
        self._ended: list[tuple[RowT, OutcomeT] | Deferral] = []
        self._held: set[UUID] = set()
        """Rows waiting, being performed, or ended and not yet committed."""
        self._outage = 0
        """Failed tries in a row of the outage that is on; 0 while there is none."""
        self._paused_until = -math.inf
        self._next_sweep = -math.inf
        self._sweeping = False
        self._stopping = False
        self._changed = asyncio.Event()
        self._has_ended = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._idle = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """Whether more work may be made for it: not while it is full, nor in an outage."""
        return self._has_room.is_set()

    @property
    def in_outage(self) -> bool:
        """Whether the last that was heard of the outside is that it is away."""
        return self._outage > 0

    async def wait_for_room(self) -> None:
        """Returns when `has_room`."""
        await self._has_room.wait()

    def look(self) -> None:
        """Asks it to look at once for what waits in its table, not only when that is due."""
        self._next_sweep = 0.0
        self._notice()

    async def rest(self) -> None:
        """Returns when `run` has done what can be done now: what waits through an outage is left alone."""
        while not (self._is_idle or self._stopping):
            self._idle.clear()
            await self._idle.wait()

    def offer(self, rows: Sequence[RowT], claimed_at: float) -> None:
        """Rows that one transaction committed, born claimed at `claimed_at` (the time of the loop).

        A runner that is full takes none of them: they wait in their table until their claims run out.
        """
        if not self._stopping and len(self._held) < self._memory:
            self._hold(rows, claimed_at)

    async def run(self) -> None:
        """Works until `stop`: then what is being performed is finished and settled, the rest given back.

        Whatever ended it, it may be run again.
        """
        settling = asyncio.create_task(self._settle_all(), name=f"{self.name}: settle")
        try:
            while not self._stopping:
                self._start_performing()
                await self._sweep_if_due()
                if self._is_idle:
                    self._idle.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._seconds_to_wait()):
                        await self._changed.wait()
                self._changed.clear()
                if settling.done():
                    break
            while self._performing:
                await asyncio.wait(self._performing)
            self._has_ended.set()
            await settling
            await self._release_waiting()
        finally:
            parts = (settling, *self._performing)
            for task in parts:
                task.cancel()
            await asyncio.gather(*parts, return_exceptions=True)  # they may hold connections
            self._waiting.clear()
            self._ended.clear()
            self._held.clear()
            self._stopping = False
            self._notice()

    def stop(self) -> None:
        """Asks `run` to come to its end."""
        self._stopping = True
        self._idle.set()
        self._notice()

    def _notice(self) -> None:
        """Something changed: the loop looks again, and the doorkeeper too."""
        if (not self._outage and len(self._held) < self._memory) or self._stopping:
            self._has_room.set()
        else:
            self._has_room.clear()
        self._changed.set()

    def _seconds_to_wait(self) -> float | None:
        """Until there is something to do although nothing changes; None while only a change can tell."""
        now = _now()
        if self._waiting and len(self._performing) < self._slots:
            return max(0.0, self._paused_until - now)  # the pause may have ended since it was last looked at
        return max(self._next_sweep, self._paused_until) - now if self._room() > 0 else None

    @property
    def _is_idle(self) -> bool:
        left_alone = len(self._waiting) if self._outage else 0
        looks_later = not self._sweeping and _now() < max(self._next_sweep, self._paused_until)
        return len(self._held) == left_alone and looks_later

    @property
    def _slots(self) -> int:
        """How many rows may be performed at a time; in an outage one, to try with."""
        return 1 if self._outage else self._concurrency

    def _room(self) -> int:
        """How many more rows may be claimed; in an outage one, to try with."""
        return (1 if self._outage else self._memory) - len(self._held)

    def _hold(self, rows: Sequence[RowT], claimed_at: float) -> None:
        for row in rows:
            if row.id not in self._held:
                self._held.add(row.id)
                self._waiting.append((row, claimed_at + LEASE_SECONDS))
        self._notice()

    # Performing

    def _start_performing(self) -> None:
        now = _now()
        while self._waiting and len(self._performing) < self._slots and now >= self._paused_until:
            row, expires = self._waiting.popleft()
            if (
                now + self._perform_seconds > expires
            ):  # it could outlast its claim: left to the next who claims
                self._held.discard(row.id)
                continue
            task = asyncio.create_task(self._perform_one(row), name=f"{self.name}: {row.id}")
            self._performing.add(task)
            task.add_done_callback(self._performed)

    def _performed(self, task: asyncio.Task[None]) -> None:
        self._performing.discard(task)
        self._has_ended.set()
        self._notice()

    async def _perform_one(self, row: RowT) -> None:
        try:
            async with asyncio.timeout(self._perform_seconds):
                reach(KillPoint.PERFORMING)
                outcome = await self._perform(row)
                reach(KillPoint.PERFORMED)
        except Unavailable as error:
            self._begin_pause(error)
            self._ended.append(Deferral(row.id, str(error), delay=self._paused_until - _now()))
        except (UnknownOutcome, TimeoutError) as error:
            reason = str(error) or "No answer came in time."
            logger.warning("%s: %s is asked again later: %s", self.name, row.id, reason)
            self._ended.append(Deferral(row.id, reason))
        except Exception as error:
            logger.exception("%s: %s failed", self.name, row.id)
            self._ended.append(Deferral(row.id, repr(error), mortal=True))
        else:
            if self._outage:
                logger.info("%s: works again", self.name)
                self._outage = 0
            self._ended.append((row, outcome))

    def _begin_pause(self, error: Unavailable) -> None:
        now = _now()
        if now < self._paused_until:  # one of several that ran into the same outage
            return
        pause = max(backoff(self._outage, first=0.5, most=LONGEST_PAUSE), error.retry_after or 0.0)
        if not self._outage:
            logger.warning("%s: paused: %s", self.name, error)
        self._outage += 1
        self._paused_until = now + pause
        self._next_sweep = self._paused_until

    # Settling

    async def _settle_all(self) -> None:
        """Commits what has ended, a batch at a time, until stopped and nothing is left."""
        while True:
            await self._has_ended.wait()
            self._has_ended.clear()
            ended, self._ended = self._ended, []
            tries = 0
            while ended:
                try:
                    await commit_in_halves(ended, self._commit, self._put_aside)
                except Unavailable as error:
                    logger.warning("%s: outcomes wait for the database: %s", self.name, error)
                    if self._stopping and tries > 3:  # their claims run out, and they are asked again
                        break
                    await asyncio.sleep(backoff(tries, first=0.1, most=5.0))
                    tries += 1
                    continue
                break
            for item in ended:
                self._held.discard(_id_of(item))
            self._notice()
            if self._stopping and not self._performing and not self._ended:
                return

    async def _commit(self, ended: Sequence[tuple[RowT, OutcomeT] | Deferral]) -> Sequence[None]:
        outcomes = [item for item in ended if not isinstance(item, Deferral)]
        deferrals = [item for item in ended if isinstance(item, Deferral)]
        async with self._transactions() as tx:
            if outcomes:
                await self._settle(tx, outcomes)
            if deferrals:
                await self._leases.defer(tx, deferrals)
        return [None] * len(ended)

    async def _put_aside(self, item: tuple[RowT, OutcomeT] | Deferral, error: Exception) -> None:
        logger.error("%s: %s can't be settled", self.name, _id_of(item), exc_info=error)
        async with self._transactions() as tx:
            await self._leases.defer(tx, [Deferral(_id_of(item), repr(error), mortal=True)])

    # Sweeping

    async def _sweep_if_due(self) -> None:
        """Claims what nobody holds: left by a crash, put off until now, or more than fitted in memory."""
        now = _now()
        limit = min(self._room(), SWEEP_ROWS)
        if now < max(self._next_sweep, self._paused_until) or limit <= 0:
            return
        self._next_sweep = now + self._sweep_seconds * random.uniform(0.8, 1.2)  # noqa: S311  # no secret
        self._sweeping = True
        try:
            async with self._transactions() as tx:
                rows = await self._leases.claim(tx, limit)
        except Unavailable as error:
            logger.warning("%s: can't look for waiting rows: %s", self.name, error)
            return
        finally:
            self._sweeping = False
        if rows:
            reach(KillPoint.CLAIMED)
            self._hold(rows, tx.started)  # also when stopping: then they are released
            if len(rows) == limit:
                self._next_sweep = now
        elif self._outage and not self._held:
            if now < self._paused_until + MOMENT_SECONDS:  # what was put off falls due just after the pause
                self._next_sweep = now + MOMENT_SECONDS / 10
            else:  # nothing left that could tell whether the outage is over
                self._outage = 0
                self._notice()

    async def _release_waiting(self) -> None:
        ids = [row.id for row, _ in self._waiting]
        if ids:
            with suppress(Unavailable):  # their claims run out by themselves
                async with self._transactions() as tx:
                    await self._leases.release(tx, ids)


def _id_of(item: tuple[RowT, object] | Deferral) -> UUID:
    return item.id if isinstance(item, Deferral) else item[0].id


def _now() -> float:
    return asyncio.get_running_loop().time()
