"""Strikes faults: breaks, observes, heals and records each."""

import asyncio
import json
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Final

import asyncpg

from tests.faults.cluster import Cluster
from tests.faults.containers import DockerFailed
from tests.faults.fault import Fault, Misbehaved, NoEffect
from tests.faults.replica import NotServing

MAX_SECONDS: Final = 90.0
"""Most seconds until a fault has its effect on a target, and most until the target is healed."""
_NO_EFFECT: Final = (NoEffect, TimeoutError, DockerFailed, OSError, asyncpg.PostgresError)


@dataclass(frozen=True)
class Strike:
    """A fault that was struck, and the evidence of its effect."""

    fault: str
    kind: str
    effective: bool
    evidence: str
    """The evidence of its effect, or why there is none."""
    began: float
    """Seconds since the run began."""
    seconds: float


@dataclass
class Strikes:
    """All faults that were struck in a run."""

    cluster: Cluster
    began: float = field(default_factory=time.monotonic)
    all: list[Strike] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    """Misbehaviour of the system under faults, and faults that could not be healed."""
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    @property
    def effective(self) -> int:
        """The number of faults whose effect was observed."""
        return sum(strike.effective for strike in self.all)

    async def strike(self, fault: Fault, kind: str, targets: Collection[str] = ()) -> Strike:
        """Strikes and heals a fault while no other fault strikes its targets. NoEffect is recorded."""
        locks = [self._locks.setdefault(target, asyncio.Lock()) for target in sorted(targets)]
        for lock in locks:
            await lock.acquire()
        try:
            return await self._strike(fault, kind, MAX_SECONDS * max(1, len(targets)))
        finally:
            for lock in reversed(locks):
                lock.release()

    async def _strike(self, fault: Fault, kind: str, seconds: float) -> Strike:
        began = time.monotonic()
        effective = False
        try:
            async with asyncio.timeout(seconds):
                evidence = await fault.strike(self.cluster)
            effective = True
        except Misbehaved as wrong:
            evidence, effective = str(wrong), True
            self.violations.append(f"{fault.name}: {wrong}")
        except _NO_EFFECT as none:
            evidence = str(none) or f"It had no effect within {seconds:.0f} s."
        await self._heal(fault, seconds)
        now = time.monotonic()
        strike = Strike(fault.name, kind, effective, evidence, began - self.began, now - began)
        self.all.append(strike)
        with (self.cluster.folder / "strikes.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(strike)) + "\n")
        return strike

    async def _heal(self, fault: Fault, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await fault.heal(self.cluster)
        except (Misbehaved, NotServing, *_NO_EFFECT) as error:
            self.violations.append(f"{fault.name}: could not be healed: {error!r}")
