"""Performing: calls the outside for many rows at a time, and turns errors into deferrals."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from events.claims import RENEW_SECONDS, Claims, Held
from events.errors import NotAsked, Postponed, Unavailable, UnknownOutcome
from events.killpoints import KillPoint, reach
from events.leases import Deferral, RowT
from events.outage import Outage, now
from events.retry import Failure, RetryPolicy
from events.settling import Settling

OutcomeT = TypeVar("OutcomeT")

GRACE_SECONDS: Final = 10.0
"""How long running work may take to end after `stop`. Then it is cancelled: its outcome is unknown."""

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Performing(Generic[RowT, OutcomeT]):
    """Performs at most `concurrency` rows at a time, beside slow ones; in an outage one, as a probe."""

    name: str
    perform: Callable[[RowT], Awaitable[OutcomeT]]
    claims: Claims[RowT]
    settling: Settling[RowT, OutcomeT]
    outage: Outage
    policy: RetryPolicy
    subject: Callable[[RowT], str]
    concurrency: int
    slow_after_seconds: float
    slow_places: int
    changed: Callable[[], None]
    """Called when a place may be free."""
    tasks: dict["asyncio.Task[None]", Held[RowT]] = field(default_factory=dict, init=False)
    _slow_tasks: set["asyncio.Task[None]"] = field(default_factory=set, init=False)
    _cancelling: bool = field(default=False, init=False)

    @property
    def ordinary(self) -> int:
        """How many rows have an ordinary place."""
        return len(self.tasks) - self.claims.slow_rows

    @property
    def has_place(self) -> bool:
        """Whether one more row may be begun. It may have to wait for the end of a pause."""
        return self.ordinary < (1 if self.outage.is_on else self.concurrency)

    def start(self) -> None:
        """Begins waiting rows while there are free places."""
        while self.claims.waiting and self.has_place and now() >= self.outage.paused_until:
            held = self._take_next()
            if held.expires - now() < RENEW_SECONDS:  # not renewed: another process will claim it
                self.claims.held.discard(held.row.id)
                continue
            task = asyncio.create_task(self._perform_one(held), name=f"{self.name}: {held.row.id}")
            self.tasks[task] = held
            task.add_done_callback(self._done)
            if self.slow_places:
                asyncio.get_running_loop().call_later(self.slow_after_seconds, self._move_to_slow_place, task)

    async def finish(self) -> None:
        """Waits for running work, and cancels it after GRACE_SECONDS."""
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=GRACE_SECONDS)
        self._cancelling = True
        try:
            for task in self.tasks:
                task.cancel()
            while self.tasks:
                await asyncio.wait(self.tasks)
        finally:
            self._cancelling = False

    def _take_next(self) -> Held[RowT]:
        """The longest waiting row; in an outage the first whose subject has not failed in it."""
        waiting = self.claims.waiting
        if not self.outage.is_on:
            return waiting.popleft()
        untried = (held for held in waiting if self.outage.may_probe(self.subject(held.row)))
        held = next(untried, None)
        if held is None:
            self.outage.probe_anyone()
            held = waiting[0]
        waiting.remove(held)
        return held

    def _move_to_slow_place(self, task: "asyncio.Task[None]") -> None:
        if task in self.tasks:
            self._slow_tasks.add(task)
            self._places_changed()

    def _done(self, task: "asyncio.Task[None]") -> None:
        self.tasks.pop(task, None)
        self._slow_tasks.discard(task)
        self.settling.wake.set()
        self._places_changed()

    def _places_changed(self) -> None:
        self.claims.slow_rows = min(len(self._slow_tasks), self.slow_places)
        self.changed()

    async def _perform_one(self, held: Held[RowT]) -> None:
        row = held.row
        try:
            async with asyncio.timeout(self.policy.deadline):
                reach(KillPoint.PERFORMING)
                outcome = await self.perform(row)
                reach(KillPoint.PERFORMED)
        except Unavailable as error:
            if self.outage.unavailable(self.subject(row), now(), error.retry_after):
                logger.warning("%s: paused: %s", self.name, error)
            self.claims.next_sweep = self.outage.paused_until
            self._defer(held, "outage", str(error), self.outage.paused_until - now())
        except Postponed as error:
            if error.perhaps_all:
                self._unanswered(row, str(error))
            else:
                self._answered()
            logger.info("%s: %s is postponed: %s", self.name, row.id, error)
            self._defer(held, "postponed", str(error), error.retry_after or 0.0)
        except NotAsked as error:
            logger.info("%s: %s is not asked for at the moment: %s", self.name, row.id, error)
            self._defer(held, "unknown", str(error))
        except (UnknownOutcome, TimeoutError) as error:
            reason = str(error) or "No answer came in time."
            self._unanswered(row, reason)
            logger.warning("%s: %s is asked again later: %s", self.name, row.id, reason)
            self._defer(held, "unknown", reason)
        except asyncio.CancelledError:
            if not self._cancelling:
                raise
            self._defer(held, "unknown", "The process ended before an answer came.")
        except Exception as error:
            logger.exception("%s: %s failed", self.name, row.id)
            self._defer(held, "defect", repr(error))
        else:
            self._answered()
            self.settling.ended.append((held.lease, outcome))

    def _answered(self) -> None:
        if self.outage.answered():
            logger.info("%s: works again", self.name)

    def _unanswered(self, row: RowT, reason: str) -> None:
        if self.outage.unanswered(self.subject(row), now()):
            logger.warning("%s: paused: no subject gets an answer: %s", self.name, reason)

    def _defer(self, held: Held[RowT], failure: Failure, error: str, at_least: float = 0.0) -> None:
        """Defers the row by its policy, or gives it up."""
        tries = held.lease.tries
        delay = at_least if failure == "outage" else max(self.policy.pause(tries), at_least)
        state = self.policy.verdict(failure, tries)
        if state:
            logger.error("%s: %s is given up as %s: %s", self.name, held.row.id, state, error)
        self.settling.ended.append(Deferral(held.row.id, failure, error, delay, state, tries.attempts))
