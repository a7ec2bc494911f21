"""The machine: how fast it is, and how steady, by a fixed piece of work before every round.

Other work on the machine shows here as it does in the figures: readers can compare machines, and distrust a
run on an unsteady one. `python -m bench.machine` does the Python part once and prints its seconds.
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

from bench.servers import Place

_STEPS: Final = 2_000_000
_COMMITS: Final = 200
UNSTEADY: Final = 0.1
"""A spread from which on a run is not to be trusted."""


@dataclass(frozen=True)
class Machine:
    """What the fixed work took."""

    python_ms: float
    """Milliseconds of a loop in pure Python, on every core at once: the mean of the cores."""
    commit_ms: float
    """Milliseconds of a commit of one row, one after the other on one connection: the median of 200."""


@dataclass(frozen=True)
class Steadiness:
    """A figure over the rounds."""

    middle: float
    spread: float
    """From the least to the most, as a part of the middle."""

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Steadiness":
        """Of a figure of each round."""
        middle = median(figures)
        return cls(middle, (max(figures) - min(figures)) / middle)

    @property
    def is_steady(self) -> bool:
        """Whether the rounds can be trusted."""
        return self.spread < UNSTEADY


async def probe(place: Place, cores: int) -> Machine:
    """Does the fixed work, in some three seconds."""
    return Machine(await _python(cores), await _commits(place))


def loop_seconds() -> float:
    """How long the loop takes: integers, a list, a dictionary and calls, as an interpreter is used."""
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
        said, _ = await process.communicate()
        return float(said)

    return 1000 * mean(await asyncio.gather(*(once() for _ in range(cores))))


async def _commits(place: Place) -> float:
    connection = await asyncpg.connect(place.database_url)
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
    print(loop_seconds())  # noqa: T201  # for the process that started this one
