"""The scheduler: the one source of choice. Everybody waits before a step, and it lets exactly one go on."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from events.errors import DatabaseUnavailable
from events.killpoints import KillPoint
from tests.simulation.fates import HANDLING, TRANSACTION, Fate
from tests.simulation.loop import VirtualLoop
from tests.simulation.process import Process, current

STALLS: Final = (1.0, 5.0, 16.0, 40.0)
"""Seconds for which everybody may stand still; a claim holds for 15."""
SWEEP: Final = "sweep"
"""How the steps end their names that only look whether there is something to do."""
MOST_IDLE: Final = 25
"""Moments of a storm with nothing but sweeps to do, in a row: then it is over."""
MOST_DEFECTS: Final = 4
"""In one schedule: fewer than an event may have before it is given up."""


class Defect(Exception):
    """A failure that nobody has foreseen."""


@dataclass(eq=False)
class Step:
    """One step: who wants to do what, and how it will end."""

    what: str
    process: Process | None
    ready: Callable[[], bool]
    fates: Sequence[Fate]
    opened: "asyncio.Future[None]"
    fate: Fate = Fate.WELL
    notes: list[str] = field(default_factory=list)

    @property
    def sweeps(self) -> bool:
        return self.what.endswith(SWEEP)

    @property
    def who(self) -> str:
        return self.process.name if self.process else "outside"

    def __str__(self) -> str:
        fate = "" if self.fate is Fate.WELL else f" [{self.fate}]"
        return f"{self.who}: {self.what}{fate}{''.join(f' {note}' for note in self.notes)}"


@dataclass(frozen=True)
class Act:
    """Something that happens between two steps."""

    name: str
    weight: float
    possible: Callable[[], bool]
    happen: Callable[[], str]
    """Says what happened, for the trace."""


class Scheduler:
    """Chooses by its seed, at every moment at which nobody can go on without being let."""

    def __init__(self, seed: int, loop: VirtualLoop) -> None:
        self.random = random.Random(seed)
        self.loop = loop
        self.trace: list[object] = []
        self.steps = 0
        self.defects = 0
        self.stormy = False
        self._steps_of_storm = 0
        self._idle = 0
        self._waiting: list[Step] = []
        self._active: Step | None = None
        self._acts: Sequence[Act] = ()
        self._rest: asyncio.Future[None] | None = None
        self._failing = 0.0
        self._fates: Sequence[Fate] = ()
        self._slow: set[str] = set()
        self._passing = 0.05
        loop.rewind(self._at_rest)

    # What those do who are scheduled

    @asynccontextmanager
    async def step(
        self, what: str, fates: Sequence[Fate] = (), ready: Callable[[], bool] = lambda: True
    ) -> AsyncIterator[Step]:
        """Waits to be let on, then does what is inside as one step. A dead process is never let on."""
        process = current()
        if process is not None and process.dead:
            raise asyncio.CancelledError
        step = Step(what, process, ready, fates, self.loop.create_future())
        self._waiting.append(step)
        try:
            await step.opened
        finally:
            if step in self._waiting:
                self._waiting.remove(step)
        self._active = step
        in_transaction = fates in (TRANSACTION, HANDLING)  # there the kill points tell the moment
        try:
            with self.loop.working():
                if step.fate is Fate.KILLED_BEFORE and not in_transaction:
                    self._die(step)
                yield step
                if step.fate is Fate.KILLED_AFTER and not in_transaction:
                    self._die(step)
        finally:
            self._active = None

    def reached(self, point: KillPoint) -> None:
        """What happens at the two kill points of a transaction."""
        step = self._active
        if step is None or step.fates not in (TRANSACTION, HANDLING):
            return
        match point, step.fate:
            case (KillPoint.COMMITTING, Fate.UNDONE) | (KillPoint.COMMITTED, Fate.ANSWER_LOST):
                raise DatabaseUnavailable
            case (KillPoint.COMMITTING, Fate.KILLED_BEFORE) | (KillPoint.COMMITTED, Fate.KILLED_AFTER):
                self._die(step)

    def stumble(self) -> None:
        """What a handler does when its step is to meet a defect: raises it."""
        if self._active and self._active.fate is Fate.DEFECT:
            raise Defect

    @property
    def swallows(self) -> bool:
        """Whether a handler is to swallow the error of a statement in this step."""
        return self._active is not None and self._active.fate is Fate.SWALLOWED

    def happened(self, what: str) -> None:
        """Writes into the trace."""
        self.trace.append(what)

    # What the schedule does

    def brew(self, acts: Sequence[Act], processes: Sequence[str], fates: Sequence[Fate] = ()) -> None:
        """What kind of storm it will be: no two seeds have the same weather.

        `fates` makes it one in which just these are frequent.
        """
        chosen = self.random
        self._acts = [act for act in acts if chosen.random() < 0.6]
        self._failing = chosen.choice((0.0, 0.05, 0.15, 0.3))
        bad = [fate for fate in Fate if fate is not Fate.WELL]
        self._fates = chosen.sample(bad, chosen.randint(1, 4))  # few at a time, so that each strikes often
        if fates:
            self._failing, self._fates = 0.3, fates
        self._slow = {name for name in processes if chosen.random() < 0.2}
        self._passing = chosen.choice((0.01, 0.05, 0.15))
        self._steps_of_storm = chosen.randint(60, 240)

    def always(self, act: Act) -> None:
        """In every weather."""
        self._acts = [*self._acts, act]

    async def storm(self) -> None:
        """Returns when the storm is over and nobody can go on any more."""
        self.stormy = True
        await self.rest()

    async def rest(self) -> None:
        """Returns when nobody can go on without time passing."""
        self._rest = self.loop.create_future()
        await self._rest
        self._rest = None

    def let_pass(self, seconds: float) -> None:
        """Time passes."""
        self.happened(f"{seconds:.3f} s pass")
        self.loop.let_pass(seconds)

    # Choosing

    def _at_rest(self) -> None:
        able = [step for step in self._waiting if step.ready()]
        self._idle = self._idle + 1 if all(step.sweeps for step in able) else 0
        if self.stormy and (self._steps_of_storm <= 0 or self._idle > MOST_IDLE):
            self.stormy = False
            self.happened("the storm is over")
        if self.stormy:
            self._weather(able)
        elif able:
            self._let_on(self.random.choice(able), Fate.WELL)
        elif self._rest and not self._rest.done():
            self._rest.set_result(None)
        else:
            raise AssertionError("Nobody can go on, and nobody waits for that.")

    def _weather(self, able: Sequence[Step]) -> None:
        acts = [act for act in self._acts if act.possible()]
        weights = [
            *((0.05 if step.who in self._slow else 1.0) * (0.2 if step.sweeps else 1.0) for step in able),
            *(act.weight * 5 for act in acts),
            self._passing * 2,
        ]
        [chosen] = self.random.choices(range(len(weights)), weights)
        if chosen < len(able):
            self._let_on(able[chosen], self._fate_of(able[chosen]))
        elif chosen < len(able) + len(acts):
            self.happened(acts[chosen - len(able)].happen())
            self._steps_of_storm -= 1
        else:
            due = self.loop.next_timer
            until_next = max(0.0, due - self.loop.time()) if due is not None else 1.0
            self.let_pass(self.random.choice((until_next, until_next, until_next, *STALLS)))

    def _fate_of(self, step: Step) -> Fate:
        possible = [fate for fate in step.fates if fate in self._fates]
        if not possible or self.random.random() >= self._failing:
            return Fate.WELL
        fate = self.random.choice(possible)
        if fate in (Fate.DEFECT, Fate.SWALLOWED):
            self.defects += 1
            return fate if self.defects <= MOST_DEFECTS else Fate.WELL
        return fate

    def _let_on(self, step: Step, fate: Fate) -> None:
        self.steps += 1
        self._steps_of_storm -= not step.sweeps
        step.fate = fate
        self._waiting.remove(step)
        self.trace.append(step)
        step.opened.set_result(None)

    def _die(self, step: Step) -> None:
        assert step.process
        step.process.kill()
        raise asyncio.CancelledError
