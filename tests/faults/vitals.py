"""Vitals: samples memory, file descriptors and connections during a run."""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression
from typing import Final

from tests.faults.checks import Finding
from tests.faults.cluster import Cluster

WARM_UP_SECONDS: Final = 15.0
"""A younger process still grows, so its samples do not count for growth."""
MAX_MEMORY: Final = 400.0
"""MiB of one process: its code, and 2,000 orders at most."""
MAX_FILES: Final = 400
MAX_GROWTH: Final = 8.0
"""MiB a minute, of processes that run long enough."""
_MIB: Final = 1 << 20


@dataclass(frozen=True)
class Sample:
    """One process at one time."""

    at: float
    age: float
    memory: float
    """Resident memory, in MiB."""
    files: int


@dataclass
class Vitals:
    """Samples all processes."""

    cluster: Cluster
    samples: dict[tuple[str, int], list[Sample]] = field(default_factory=lambda: defaultdict(list))
    """By replica and process id."""
    connections: int = 0
    """The most connections that PostgreSQL had."""

    async def watch(self, seconds: float = 5.0) -> None:
        """Samples until cancelled."""
        while True:
            self._sample()
            [record] = await self.cluster.fetch("SELECT count(*) AS n FROM pg_stat_activity")
            self.connections = max(self.connections, record["n"])
            await asyncio.sleep(seconds)

    def most(self) -> dict[str, tuple[float, int]]:
        """The most memory (MiB) and files of any process of each replica."""
        most: dict[str, tuple[float, int]] = {}
        for (name, _), samples in self.samples.items():
            memory, files = most.get(name, (0.0, 0))
            most[name] = (
                max(memory, *(sample.memory for sample in samples)),
                max(files, *(sample.files for sample in samples)),
            )
        return most

    def growth(self) -> dict[str, float]:
        """Growth in MiB a minute of each replica's longest-lived process, if it ran for two minutes."""
        growth = {}
        for name in {name for name, _ in self.samples}:
            lives = [_warmed_up(samples) for (of, _), samples in self.samples.items() if of == name]
            longest = max(lives, key=_span, default=[])
            if _span(longest) >= 120:
                slope = linear_regression([s.at for s in longest], [s.memory for s in longest]).slope
                growth[name] = slope * 60
        return growth

    def findings(self) -> list[Finding]:
        """The breaches of I23."""
        found = []
        for name, (memory, files) in sorted(self.most().items()):
            if memory > MAX_MEMORY:
                found.append(Finding("I23", f"{name} had {memory:.0f} MiB of memory", 1))
            if files > MAX_FILES:
                found.append(Finding("I23", f"{name} had {files} files open", 1))
        for name, growth in sorted(self.growth().items()):
            if growth > MAX_GROWTH:
                found.append(Finding("I23", f"{name} grew by {growth:.1f} MiB a minute", 1))
        return found

    def _sample(self) -> None:
        now = time.monotonic()
        for replica in self.cluster.replicas.values():
            pid = replica.pid
            if pid is None:
                continue
            try:
                pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
                files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
            except OSError:
                continue
            memory = pages * os.sysconf("SC_PAGE_SIZE") / _MIB
            self.samples[replica.name, pid].append(Sample(now, now - replica.started_at, memory, files))


def _warmed_up(samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.age >= WARM_UP_SECONDS]


def _span(samples: Sequence[Sample]) -> float:
    return samples[-1].at - samples[0].at if samples else 0.0
