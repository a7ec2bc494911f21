"""Striking: one fault is struck, seen, healed and written down."""

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

LONGEST: Final = 90.0
"""Seconds that a fault may take to have its effect, and to be healed."""
_NOT_SEEN: Final = (NoEffect, TimeoutError, DockerFailed, OSError, asyncpg.PostgresError)


@dataclass(frozen=True)
class Strike:
    """A fault that was struck, and what was seen of it."""

    fault: str
    kind: str
    effective: bool
    evidence: str
    """What was seen of its effect, or why none was."""
    began: float
    """Seconds since the run began."""
    seconds: float


@dataclass
class Strikes:
    """All that was struck in a run."""

    cluster: Cluster
    began: float = field(default_factory=time.monotonic)
    all: list[Strike] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)
    """What the system did under a fault that it must never do, and what could not be healed."""
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    @property
    def effective(self) -> int:
        """How many were seen to have had their effect."""
        return sum(strike.effective for strike in self.all)

    async def strike(self, fault: Fault, kind: str, targets: Collection[str] = ()) -> Strike:
        """Strikes and heals it, while no other fault strikes one of its targets. NoEffect is written down."""
        locks = [self._locks.setdefault(target, asyncio.Lock()) for target in sorted(targets)]
        for lock in locks:
            await lock.acquire()
        try:
            return await self._strike(fault, kind)
        finally:
            for lock in reversed(locks):
                lock.release()

    async def _strike(self, fault: Fault, kind: str) -> Strike:
        began = time.monotonic()
        effective = False
        try:
            async with asyncio.timeout(LONGEST):
                evidence = await fault.strike(self.cluster)
            effective = True
        except Misbehaved as wrong:
            evidence, effective = str(wrong), True
            self.wrongs.append(f"{fault.name}: {wrong}")
        except _NOT_SEEN as none:
            evidence = str(none) or f"It had no effect within {LONGEST:.0f} s."
        await self._heal(fault)
        now = time.monotonic()
        strike = Strike(fault.name, kind, effective, evidence, began - self.began, now - began)
        self.all.append(strike)
        with (self.cluster.folder / "strikes.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(strike)) + "\n")
        return strike

    async def _heal(self, fault: Fault) -> None:
        try:
            async with asyncio.timeout(LONGEST):
                await fault.heal(self.cluster)
        except (Misbehaved, NotServing, *_NOT_SEEN) as error:
            self.wrongs.append(f"{fault.name}: could not be healed: {error!r}")
