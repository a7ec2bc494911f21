"""The machine's speed, from a fixed piece of work before every round.

Other work on the machine slows it as it slows the measured systems. Readers can compare machines, and
distrust a run whose rounds differ much. `python -m bench.machine` prints the seconds of the Python part.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Final

import asyncpg

from bench.servers import Workspace

_STEPS: Final = 2_000_000
_COMMITS: Final = 200
UNSTEADY: Final = 0.1
"""The spread at which a run is not to be trusted."""


@dataclass(frozen=True)
class MachineSpeed:
    """How long the fixed work took."""

    python_ms: float
    """Milliseconds of a loop in pure Python that runs on every core at once, the mean of the cores."""
    commit_ms: float
    """Milliseconds of a commit of one row, the median of 200 in sequence on one connection."""


@dataclass(frozen=True)
class Steadiness:
    """The median and spread of a figure over the rounds."""

    median: float
    spread: float
    """The difference of maximum and minimum, divided by the median."""

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Steadiness":
        """Computes both from the figure of each round."""
        middle = median(figures)
        return cls(middle, (max(figures) - min(figures)) / middle)

    @property
    def is_steady(self) -> bool:
        """Whether the spread is small enough to trust the run."""
        return self.spread < UNSTEADY


async def probe(workspace: Workspace, cores: int) -> MachineSpeed:
    """Does the fixed work, which takes about three seconds."""
    return MachineSpeed(await _python(cores), await _commits(workspace))


def loop_seconds() -> float:
    """Times a loop with integers, a list, a dictionary and calls, as interpreted code typically uses them."""
    began = time.perf_counter()
    seen: dict[int, int] = {}
    recent = [0] * 64
    number = 1
    for step in range(_STEPS):
        number = (number * 1103515245 + 12345) & 0x7FFFFFFF
        recent[step & 63] = number
        if not step & 7:
            seen[number & 1023] = max(recent[0], recent[63])
    return time.perf_counter() - began


async def _python(cores: int) -> float:
    async def once() -> float:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.machine"),
            cwd=Path(__file__).resolve().parents[1],
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        return float(output)

    return 1000 * mean(await asyncio.gather(*(once() for _ in range(cores))))


async def _commits(workspace: Workspace) -> float:
    connection = await asyncpg.connect(workspace.database_url)
    try:
        await connection.execute("CREATE TABLE machine (id integer PRIMARY KEY)")
        took = []
        for number in range(_COMMITS):
            began = time.perf_counter()
            await connection.execute("INSERT INTO machine (id) VALUES ($1)", number)
            took.append(time.perf_counter() - began)
    finally:
        await connection.close()
    return 1000 * median(took)


if __name__ == "__main__":
    print(loop_seconds())  # noqa: T201  # read by the process that started this one
