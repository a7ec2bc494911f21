"""Runners: they do the work that leased rows stand for, and commit its outcome."""

import asyncio
import logging
import math
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar
from uuid import UUID

from events.backoff import backoff
from events.delays import DELAYED_AFTER, DelayFactory
from events.errors import Postponed, Unavailable, UnknownOutcome
from events.killpoints import KillPoint, reach
from events.leases import LEASE_SECONDS, Deferral, Lease, Leased, Leases
from events.outage import Outage
from events.retry import Failure, RetryPolicy
from events.splitting import BatchFailures, commit_in_halves
from events.transaction import Transaction
from events.transactions import Transactions

RowT = TypeVar("RowT", bound=Leased)
OutcomeT = TypeVar("OutcomeT")

SWEEP_ROWS: Final = 500
"""Most rows that are claimed at once."""
RENEW_SECONDS: Final = 5.0
"""How often the claims of held rows are renewed. Work begins only on a claim that holds for as long."""
GRACE_SECONDS: Final = 10.0
"""How long work under way may take to end after `stop`. Then it is broken off: its outcome is unknown."""
MOMENT_SECONDS: Final = 1.0
"""Deferring rows takes up to a second, so a row can come due this long after a pause ends."""

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Held(Generic[RowT]):
    """A row in this process's memory, and until when its claim holds (the loop's time)."""

    lease: Lease[RowT]
    expires: float

    @property
    def row(self) -> RowT:
        return self.lease.row


_Ended: TypeAlias = tuple[Lease[RowT], OutcomeT] | Deferral


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
        settle: Callable[[Transaction, Sequence[tuple[RowT, OutcomeT]]], Awaitable[None]],
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
        self._leases = leases
        self._transactions = transactions
        self._perform = perform
        self._settle = settle
        self._policy = policy
        self._delayed = delayed
        self._subject = subject
        self._concurrency = concurrency
        self._slow_after = slow_after
        self._slow_lane = slow_lane
        self._memory = memory
        self._sweep_seconds = sweep_seconds
        self._waiting: deque[_Held[RowT]] = deque()
        self._performing: dict[asyncio.Task[None], _Held[RowT]] = {}
        self._slow: set[asyncio.Task[None]] = set()
        self._ended: list[_Ended[RowT, OutcomeT]] = []
        self._held: set[UUID] = set()
        """Rows waiting, being performed, or ended and not yet committed."""
        self._outage = Outage()
        self._next_sweep = -math.inf
        self._next_renewal = -math.inf
        self._next_announcement = -math.inf
        self._sweeping = False
        self._stopping = False
        self._breaking_off = False
        self._changed = asyncio.Event()
        self._has_ended = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._idle = asyncio.Event()

    @property
    def room(self) -> int:
        """How many more rows may be made for it. In an outage they wait in their table, not in memory.

        A tenth of the memory is kept free for what waits in the table, so new rows never starve old ones.
        """
        return max(0, self._memory - self._memory // 10 - len(self._held))

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
        self._next_sweep = self._next_announcement = -math.inf
        self._notice()

    async def wait_until_idle(self) -> None:
        """Returns when `run` has done what can be done now: what waits through an outage is left alone."""
        while not (self._is_idle or self._stopping):
            self._idle.clear()
            await self._idle.wait()

    def offer(self, rows: Sequence[RowT], claimed_at: float) -> None:
        """Rows that one transaction committed, born claimed at `claimed_at` (the time of the loop).

        A runner that is full, or in an outage, takes none of them: they wait in their table until their
        claims run out.
        """
        if self.takes_new:
            self._waiting.extend(self._hold([Lease(row) for row in rows], claimed_at))
            self._notice()

    async def run(self) -> None:
        """Works until `stop`: then what is being performed is finished and settled, the rest given back.

        Whatever ended it, it may be run again.
        """
        settling = asyncio.create_task(self._settle_all(), name=f"{self.name}: settle")
        try:
            while not self._stopping:
                self._start_performing()
                await self._renew_if_due()
                await self._announce_if_due()
                await self._sweep_if_due()
                if self._is_idle:
                    self._idle.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._seconds_to_wait()):
                        await self._changed.wait()
                self._changed.clear()
                if settling.done():
                    break
            await self._finish_performing()
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
            self._stopping = self._breaking_off = False
            self._notice()

    def stop(self) -> None:
        """Asks `run` to come to its end."""
        self._stopping = True
        self._idle.set()
        self._notice()

    def _notice(self) -> None:
        """Something changed: wakes `run`, and opens or closes the door for new work."""
        if self.room > 0 or self._stopping:
            self._has_room.set()
        else:
            self._has_room.clear()
        self._changed.set()

    def _seconds_to_wait(self) -> float | None:
        """Until there is something to do although nothing changes; None while only a change can tell."""
        paused_until = self._outage.paused_until
        times = []
        if self._waiting and self._ordinary < self._places:
            times.append(paused_until)  # it may have ended since it was last looked at
        if self._claimable > 0:
            times.append(max(self._next_sweep, paused_until))
        if self._waiting or self._performing:
            times.append(self._next_renewal)
        if self._delayed is not None:
            times.append(self._next_announcement)
        return max(0.0, min(times) - _now()) if times else None

    @property
    def _is_idle(self) -> bool:
        left_alone = len(self._waiting) if self._outage.is_on else 0
        sweeps_later = not self._sweeping and _now() < max(self._next_sweep, self._outage.paused_until)
        return len(self._held) == left_alone and sweeps_later

    @property
    def _places(self) -> int:
        """How many rows may be performed at a time; in an outage one, as a probe."""
        return 1 if self._outage.is_on else self._concurrency

    @property
    def _in_slow_lane(self) -> int:
        """How many rows are being performed in the slow lane."""
        return min(len(self._slow), self._slow_lane)

    @property
    def _ordinary(self) -> int:
        """How many rows are being performed outside of the slow lane."""
        return len(self._performing) - self._in_slow_lane

    @property
    def _claimable(self) -> int:
        """How many more rows may be claimed; in an outage one, as a probe, beside those in the slow lane."""
        room = self._memory - len(self._held)
        return min(room, 1 - len(self._held) + self._in_slow_lane) if self._outage.is_on else room

    def _hold(self, leases: Sequence[Lease[RowT]], claimed_at: float) -> list[_Held[RowT]]:
        if not self._held:
            self._next_renewal = _now() + RENEW_SECONDS / 2
        held = [
            _Held(lease, claimed_at + LEASE_SECONDS) for lease in leases if lease.row.id not in self._held
        ]
        self._held.update(each.row.id for each in held)
        return held

    # Performing

    def _start_performing(self) -> None:
        while self._waiting and self._ordinary < self._places and _now() >= self._outage.paused_until:
            held = self._take_next()
            if held.expires - _now() < RENEW_SECONDS:  # it could not be renewed: left to the next who claims
                self._held.discard(held.row.id)
                continue
            task = asyncio.create_task(self._perform_one(held), name=f"{self.name}: {held.row.id}")
            self._performing[task] = held
            task.add_done_callback(self._performed)
            if self._slow_lane:
                asyncio.get_running_loop().call_later(self._slow_after, self._move_to_slow_lane, task)

    def _take_next(self) -> _Held[RowT]:
        """The row that waited longest; in an outage the first about a subject that has not failed in it."""
        if not self._outage.is_on:
            return self._waiting.popleft()
        untried = (held for held in self._waiting if self._outage.may_probe(self._subject(held.row)))
        held = next(untried, None)
        if held is None:
            self._outage.probe_anyone()
            held = self._waiting[0]
        self._waiting.remove(held)
        return held

    def _move_to_slow_lane(self, task: "asyncio.Task[None]") -> None:
        if task in self._performing:
            self._slow.add(task)
            self._notice()

    def _performed(self, task: "asyncio.Task[None]") -> None:
        self._performing.pop(task, None)
        self._slow.discard(task)
        self._has_ended.set()
        self._notice()

    async def _perform_one(self, held: _Held[RowT]) -> None:
        row = held.row
        try:
            async with asyncio.timeout(self._policy.deadline):
                reach(KillPoint.PERFORMING)
                outcome = await self._perform(row)
                reach(KillPoint.PERFORMED)
        except Unavailable as error:
            if self._outage.unavailable(self._subject(row), _now(), error.retry_after):
                logger.warning("%s: paused: %s", self.name, error)
            self._next_sweep = self._outage.paused_until
            self._defer(held, "outage", str(error), self._outage.paused_until - _now())
        except Postponed as error:
            if error.perhaps_all:
                self._unanswered(row, str(error))
            else:
                self._answered()
            logger.info("%s: %s is put off: %s", self.name, row.id, error)
            self._defer(held, "postponed", str(error), error.retry_after or 0.0)
        except (UnknownOutcome, TimeoutError) as error:
            reason = str(error) or "No answer came in time."
            self._unanswered(row, reason)
            logger.warning("%s: %s is asked again later: %s", self.name, row.id, reason)
            self._defer(held, "unknown", reason)
        except asyncio.CancelledError:
            if not self._breaking_off:
                raise
            self._defer(held, "unknown", "The process ended before an answer came.")
        except Exception as error:
            logger.exception("%s: %s failed", self.name, row.id)
            self._defer(held, "defect", repr(error))
        else:
            self._answered()
            self._ended.append((held.lease, outcome))

    def _answered(self) -> None:
        if self._outage.answered():
            logger.info("%s: works again", self.name)

    def _unanswered(self, row: RowT, reason: str) -> None:
        if self._outage.unanswered(self._subject(row), _now()):
            logger.warning("%s: paused, as nobody gets an answer: %s", self.name, reason)

    def _defer(self, held: _Held[RowT], failure: Failure, error: str, at_least: float = 0.0) -> None:
        """Puts the row off by its policy, or gives it up."""
        tries = held.lease.tries
        delay = at_least if failure == "outage" else max(self._policy.pause(tries), at_least)
        state = self._policy.verdict(failure, tries)
        if state:
            logger.error("%s: %s is given up as %s: %s", self.name, held.row.id, state, error)
        self._ended.append(Deferral(held.row.id, failure, error, delay, state))

    async def _finish_performing(self) -> None:
        """Waits for what is being performed, and breaks off what takes too long."""
        if self._performing:
            await asyncio.wait(self._performing, timeout=GRACE_SECONDS)
        self._breaking_off = True
        for task in self._performing:
            task.cancel()
        while self._performing:
            await asyncio.wait(self._performing)

    # Settling

    async def _settle_all(self) -> None:
        """Commits what has ended, a batch at a time, until stopped and nothing is left."""
        while True:
            await self._has_ended.wait()
            self._has_ended.clear()
            ended, self._ended = self._ended, []
            tries = 0
            suspicion = BatchFailures(self._transactions.ping)
            while ended:
                try:
                    await commit_in_halves(ended, self._commit, self._put_aside, suspicion.blames_batch)
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

    async def _commit(self, ended: Sequence[_Ended[RowT, OutcomeT]]) -> Sequence[None]:
        outcomes = [(item[0].row, item[1]) for item in ended if not isinstance(item, Deferral)]
        deferrals = [item for item in ended if isinstance(item, Deferral)]

        async def settle(tx: Transaction) -> None:
            if outcomes:
                await self._settle(tx, outcomes)
            if deferrals:
                await self._leases.defer(tx, deferrals)

        await self._transactions.run(settle)
        return [None] * len(ended)

    async def _put_aside(self, item: _Ended[RowT, OutcomeT], error: Exception) -> None:
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
                self._policy.pause(tries),
                self._policy.verdict("defect", tries),
            )
        async with self._transactions() as tx:
            await self._leases.defer(tx, [deferral])

    # Claims

    async def _renew_if_due(self) -> None:
        """Renews the claims of rows that wait or are being performed, all in one statement.

        In an outage rows that wait are left to their claims: whoever probes next takes them from the table.
        """
        now = _now()
        if now < self._next_renewal or not (self._waiting or self._performing):
            return
        self._next_renewal = now + RENEW_SECONDS
        candidates = [*self._performing.values(), *(() if self._outage.is_on else self._waiting)]
        due = {
            held.row.id: held
            for held in candidates
            if now < held.expires < now + LEASE_SECONDS - RENEW_SECONDS / 2
        }
        if not due:
            return
        try:
            async with self._transactions() as tx:
                renewed = await self._leases.renew(tx, list(due))
        except Unavailable as error:
            logger.warning("%s: can't renew %d claims: %s", self.name, len(due), error)
            return
        for row_id in renewed:
            due[row_id].expires = tx.started + LEASE_SECONDS
        settled = due.keys() - renewed
        for held in [held for held in self._waiting if held.row.id in settled]:
            self._waiting.remove(held)
            self._held.discard(held.row.id)
        self._notice()

    async def _sweep_if_due(self) -> None:
        """Claims what nobody holds: left by a crash, put off until now, or more than fitted in memory."""
        now = _now()
        limit = min(self._claimable, SWEEP_ROWS)
        if now < max(self._next_sweep, self._outage.paused_until) or limit <= 0:
            return
        self._next_sweep = now + self._sweep_seconds * random.uniform(0.8, 1.2)  # noqa: S311  # no secret
        self._sweeping = True
        try:
            async with self._transactions() as tx:
                leases = await self._leases.claim(tx, limit)
        except Unavailable as error:
            logger.warning("%s: can't look for waiting rows: %s", self.name, error)
            return
        finally:
            self._sweeping = False
        if leases:
            reach(KillPoint.CLAIMED)
            held = self._hold(leases, tx.started)  # also when stopping: then they are released
            self._waiting.extendleft(reversed(held))  # they have waited longer than what is held
            self._notice()
            if len(leases) == limit:
                self._next_sweep = now
        elif self._outage.is_on and len(self._held) == self._in_slow_lane:
            if now < self._outage.paused_until + MOMENT_SECONDS:
                self._next_sweep = now + MOMENT_SECONDS / 10
            else:  # nothing is due that could tell whether the outage is over
                self._outage.answered()
                self._notice()

    # Delays

    async def _announce_if_due(self) -> None:
        """Announces which orders wait, in outages too; whoever holds the rows goes on with them."""
        if self._delayed is None or _now() < self._next_announcement:
            return
        self._next_announcement = _now() + 2 * self._sweep_seconds
        try:
            async with self._transactions() as tx:
                overdue = await self._leases.announce(tx, in_outage=self._outage.is_on)
                events = [self._delayed(each.row, each.why, each.since) for each in overdue]
                tx.emit(*(event for event in events if event))
        except Unavailable as error:
            logger.warning("%s: can't tell what waits: %s", self.name, error)
            return
        if overdue:
            reasons = Counter(each.why for each in overdue)
            logger.warning(
                "%s: %d rows have waited for over %.0f s: %s",
                self.name,
                len(overdue),
                DELAYED_AFTER,
                ", ".join(f"{count} {why}" for why, count in reasons.most_common()),
            )

    async def _release_waiting(self) -> None:
        ids = [held.row.id for held in self._waiting]
        if ids:
            with suppress(Unavailable):  # their claims run out by themselves
                async with self._transactions() as tx:
                    await self._leases.release(tx, ids)


def _id_of(item: _Ended[RowT, OutcomeT]) -> UUID:
    return item.id if isinstance(item, Deferral) else item[0].row.id


def _now() -> float:
    return asyncio.get_running_loop().time()
