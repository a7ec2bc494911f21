"""The scheduler: all tasks wait before a step, and it runs exactly one, chosen by its seed."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from events.errors import DatabaseUnavailable
from events.killpoints import KillPoint
from tests.simulation.endings import HANDLING, TRANSACTION, Ending
from tests.simulation.loop import VirtualLoop
from tests.simulation.process import Process, current

TIME_JUMPS: Final = (1.0, 5.0, 16.0, 40.0)
"""Seconds by which time may jump; a claim lasts for 15."""
SWEEP: Final = "sweep"
"""The last word in the names of steps that only sweep a table."""
MAX_IDLE_ROUNDS: Final = 25
"""The fault phase ends after so many choices in a row with only sweeps to run."""
MAX_DEFECTS: Final = 4
"""Most defects in one schedule; fewer than make an event dead."""


class Defect(Exception):
    """An unexpected exception."""


@dataclass(eq=False)
class Step:
    """A step: the process, its name, and how it will end."""

    what: str
    process: Process | None
    ready: Callable[[], bool]
    endings: Sequence[Ending]
    opened: "asyncio.Future[None]"
    ending: Ending = Ending.WELL
    notes: list[str] = field(default_factory=list)

    @property
    def sweeps(self) -> bool:
        return self.what.endswith(SWEEP)

    @property
    def who(self) -> str:
        return self.process.name if self.process else "outside"

    def __str__(self) -> str:
        ending = "" if self.ending is Ending.WELL else f" [{self.ending}]"
        return f"{self.who}: {self.what}{ending}{''.join(f' {note}' for note in self.notes)}"


@dataclass(frozen=True)
class Incident:
    """An event between two steps."""

    name: str
    weight: float
    possible: Callable[[], bool]
    run: Callable[[], str]
    """Makes it happen, and returns a line for the trace."""


class Scheduler:
    """Chooses the next step by its seed whenever no task can continue."""

    def __init__(self, seed: int, loop: VirtualLoop) -> None:
        self.random = random.Random(seed)
        self.loop = loop
        self.trace: list[object] = []
        self.steps = 0
        self.defects = 0
        self.in_fault_phase = False
        self._fault_steps = 0
        self._idle_rounds = 0
        self._waiting: list[Step] = []
        self._active: Step | None = None
        self._incidents: Sequence[Incident] = ()
        self._idle: asyncio.Future[None] | None = None
        self._failure_rate = 0.0
        self._endings: Sequence[Ending] = ()
        self._slow: set[str] = set()
        self._time_weight = 0.05
        loop.reset(self._on_idle)

    # For the scheduled tasks

    @asynccontextmanager
    async def step(
        self, what: str, endings: Sequence[Ending] = (), ready: Callable[[], bool] = lambda: True
    ) -> AsyncIterator[Step]:
        """Waits until chosen, then runs the body as one step. A step of a dead process is never chosen."""
        process = current()
        if process is not None and process.dead:
            raise asyncio.CancelledError
        step = Step(what, process, ready, endings, self.loop.create_future())
        self._waiting.append(step)
        try:
            await step.opened
        finally:
            if step in self._waiting:
                self._waiting.remove(step)
        self._active = step
        in_transaction = endings in (TRANSACTION, HANDLING)  # its kill points decide when it dies
        try:
            with self.loop.real_io():
                if step.ending is Ending.KILLED_BEFORE and not in_transaction:
                    self._die(step)
                yield step
                if step.ending is Ending.KILLED_AFTER and not in_transaction:
                    self._die(step)
        finally:
            self._active = None

    def reached(self, point: KillPoint) -> None:
        """Applies the step's ending at the two kill points of a transaction."""
        step = self._active
        if step is None or step.endings not in (TRANSACTION, HANDLING):
            return
        match point, step.ending:
            case (KillPoint.COMMITTING, Ending.UNDONE) | (KillPoint.COMMITTED, Ending.ANSWER_LOST):
                raise DatabaseUnavailable
            case (KillPoint.COMMITTING, Ending.KILLED_BEFORE) | (KillPoint.COMMITTED, Ending.KILLED_AFTER):
                self._die(step)

    def raise_defect(self) -> None:
        """Called by handlers: raises Defect if the step ends with one."""
        if self._active and self._active.ending is Ending.DEFECT:
            raise Defect

    @property
    def swallows_errors(self) -> bool:
        """Whether the handler must ignore a statement's error in this step."""
        return self._active is not None and self._active.ending is Ending.SWALLOWED

    def record(self, what: str) -> None:
        """Adds a line to the trace."""
        self.trace.append(what)

    # For the schedule

    def plan_faults(
        self, incidents: Sequence[Incident], processes: Sequence[str], endings: Sequence[Ending] = ()
    ) -> None:
        """Chooses by the seed which faults the fault phase has, and how often.

        With `endings`, only these endings fail steps, and often.
        """
        chosen = self.random
        self._incidents = [incident for incident in incidents if chosen.random() < 0.6]
        self._failure_rate = chosen.choice((0.0, 0.05, 0.15, 0.3))
        bad = [ending for ending in Ending if ending is not Ending.WELL]
        self._endings = chosen.sample(bad, chosen.randint(1, 4))  # few at a time, so that each strikes often
        if endings:
            self._failure_rate, self._endings = 0.3, endings
        self._slow = {name for name in processes if chosen.random() < 0.2}
        self._time_weight = chosen.choice((0.01, 0.05, 0.15))
        self._fault_steps = chosen.randint(60, 240)

    def add_incident(self, incident: Incident) -> None:
        """Adds an incident to those of every seed."""
        self._incidents = [*self._incidents, incident]

    async def run_fault_phase(self) -> None:
        """Runs steps with faults, then without, until no task can continue."""
        self.in_fault_phase = True
        await self.run_until_idle()

    async def run_until_idle(self) -> None:
        """Runs steps until no task can continue without time passing."""
        self._idle = self.loop.create_future()
        await self._idle
        self._idle = None

    def advance(self, seconds: float) -> None:
        """Advances the time."""
        self.record(f"{seconds:.3f} s pass")
        self.loop.advance(seconds)

    # Choosing

    def _on_idle(self) -> None:
        runnable = [step for step in self._waiting if step.ready()]
        self._idle_rounds = self._idle_rounds + 1 if all(step.sweeps for step in runnable) else 0
        if self.in_fault_phase and (self._fault_steps <= 0 or self._idle_rounds > MAX_IDLE_ROUNDS):
            self.in_fault_phase = False
            self.record("the fault phase ends")
        if self.in_fault_phase:
            self._choose(runnable)
        elif runnable:
            self._run(self.random.choice(runnable), Ending.WELL)
        elif self._idle and not self._idle.done():
            self._idle.set_result(None)
        else:
            raise AssertionError("No task can continue, and the schedule does not wait for that.")

    def _choose(self, runnable: Sequence[Step]) -> None:
        incidents = [incident for incident in self._incidents if incident.possible()]
        weights = [
            *((0.05 if step.who in self._slow else 1.0) * (0.2 if step.sweeps else 1.0) for step in runnable),
            *(incident.weight * 5 for incident in incidents),
            self._time_weight * 2,
        ]
        [chosen] = self.random.choices(range(len(weights)), weights)
        if chosen < len(runnable):
            self._run(runnable[chosen], self._ending_of(runnable[chosen]))
        elif chosen < len(runnable) + len(incidents):
            self.record(incidents[chosen - len(runnable)].run())
            self._fault_steps -= 1
        else:
            due = self.loop.next_timer
            until_next = max(0.0, due - self.loop.time()) if due is not None else 1.0
            self.advance(self.random.choice((until_next, until_next, until_next, *TIME_JUMPS)))

    def _ending_of(self, step: Step) -> Ending:
        possible = [ending for ending in step.endings if ending in self._endings]
        if not possible or self.random.random() >= self._failure_rate:
            return Ending.WELL
        ending = self.random.choice(possible)
        if ending in (Ending.DEFECT, Ending.SWALLOWED):
            self.defects += 1
            return ending if self.defects <= MAX_DEFECTS else Ending.WELL
        return ending

    def _run(self, step: Step, ending: Ending) -> None:
        self.steps += 1
        self._fault_steps -= not step.sweeps
        step.ending = ending
        self._waiting.remove(step)
        self.trace.append(step)
        step.opened.set_result(None)

    def _die(self, step: Step) -> None:
        assert step.process
        step.process.kill()
        raise asyncio.CancelledError
