"""`make soak`: a random schedule of faults against a load, which a seed repeats, then checks and a report.

ORDERS, FAULTS and SEED say how many and which; by default a short run with a seed that is told.
"""

import asyncio
import os
import random
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console

from bench.earlier import NoEarlierVersion
from tests.faults import catalogue, quiet
from tests.faults.cluster import Cluster, MigrationFailed, Provider, cluster
from tests.faults.containers import NoDocker
from tests.faults.history import History
from tests.faults.load import Load, wishes
from tests.faults.progress import Progress, progress
from tests.faults.replica import ROOT, NotServing
from tests.faults.report import Report
from tests.faults.strikes import Strikes
from tests.faults.verdict import judge
from tests.faults.vitals import Vitals

CLIENTS: Final = 32
AT_ONCE: Final = 6
"""Most faults that are under way at a time."""
MOST_BEHIND: Final = 1500
"""Orders under way at most: the load waits for the system, as its customers would."""
AHEAD: Final = 0.03
"""How far the load may be ahead of the faults, as a part of the whole run."""
STALLED_SECONDS: Final = 300.0
"""The longest for which no order may come to its end while some are under way: no fault lasts as long."""
DRAIN_SECONDS: Final = 600.0
"""Only ends what hangs: what a queue lost long ago is found as reconcile goes through all there is."""


class SystemStalled(Exception):
    """Orders are under way, and none of them has come to its end for minutes."""


@dataclass
class Pace:
    """Keeps load and faults together, so that both are spread over the whole run."""

    orders: int
    faults: int
    strikes: Strikes
    history: History
    ended: int = 0
    """Orders that have come to their end."""
    moved: float = field(default_factory=time.monotonic)
    """When an order last did, or none was under way."""

    async def may_place(self) -> None:
        """Returns when the next order may be placed."""
        while self._is_far_ahead() or self.history.accepted - self.ended > MOST_BEHIND:
            await asyncio.sleep(0.05)

    def faults_due(self) -> int:
        """How many faults should have had their effect by now."""
        return min(self.faults, 1 + int(self.faults * self.history.accepted / self.orders))

    def is_over(self) -> bool:
        """Whether enough faults had their effect and enough orders were accepted."""
        return self.strikes.effective >= self.faults and self.history.accepted >= self.orders

    async def watch(self, system: Cluster) -> None:
        """Keeps count of the orders that have come to their end."""
        while True:
            asked = time.monotonic()
            ended = await quiet.reached_end(system)
            if ended > self.ended or ended >= self.history.accepted:
                self.moved = asked
            self.ended = ended
            took = time.monotonic() - asked
            await asyncio.sleep(min(max(1.0, 20 * took), 10.0))  # counting takes longer the more there are

    def check(self) -> None:
        """Raises SystemStalled when the system has stopped working: the load waits for it, for ever."""
        if time.monotonic() - self.moved > STALLED_SECONDS:
            raise SystemStalled(f"{SystemStalled.__doc__} ({self.history.accepted - self.ended} orders)")

    def _is_far_ahead(self) -> bool:
        if not self.faults or self.strikes.effective >= self.faults:
            return False
        struck = (self.strikes.effective + AT_ONCE) / self.faults
        return self.history.accepted / self.orders > struck + AHEAD


async def soak(orders: int, faults: int, seed: int, provider: Provider, folder: Path) -> Report:
    """Runs it and returns the report."""
    began = time.monotonic()
    report = Report(seed=seed, provider=provider)
    async with AsyncExitStack() as stack:
        system = await stack.enter_async_context(cluster(folder, provider=provider))
        history = History(folder / "history.jsonl")
        stack.callback(history.close)
        strikes = Strikes(system)
        vitals = Vitals(system)
        pace = Pace(orders, faults, strikes, history)
        run = f"s{seed}"
        load = Load(history, wishes(seed, run), system.port, sys.maxsize, pace.may_place, random.Random(seed))
        shown = stack.enter_context(progress(orders, faults))
        watching = [
            asyncio.create_task(vitals.watch()),
            asyncio.create_task(pace.watch(system)),
            asyncio.create_task(_show(shown, pace)),
        ]
        try:
            placing = asyncio.create_task(load.run(CLIENTS))
            await _strike_all(pace, seed, provider)
            while not pace.is_over():
                pace.check()
                await asyncio.sleep(0.2)
            load.target = 0
            await placing
            shown.say(
                "The last order is placed and the last fault healed; waiting until nothing is left to do."
            )
            await judge(report, system, history, strikes, vitals, drain_seconds=DRAIN_SECONDS)
            if not report.holds:
                shown.say("Not everything holds: the database is kept, to find out why.")
                await system.keep_database()
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
    report.seconds = time.monotonic() - began
    return report


async def _strike_all(pace: Pace, seed: int, provider: Provider) -> None:
    """Strikes as many as are due, several at a time, until enough have had their effect."""
    under_way: set[asyncio.Task[object]] = set()
    for kind, fault, targets in catalogue.schedule(seed, provider):
        while len(under_way) >= AT_ONCE or pace.strikes.effective + len(under_way) >= pace.faults_due():
            if pace.strikes.effective >= pace.faults:
                await asyncio.gather(*under_way)
                return
            pace.check()
            await asyncio.sleep(0.05)
            for task in [task for task in under_way if task.done()]:
                under_way.discard(task)
                await task
        under_way.add(asyncio.create_task(pace.strikes.strike(fault, kind.name, targets)))


async def _show(shown: Progress, pace: Pace) -> None:
    while True:
        shown.at(pace.history.accepted, pace.ended, pace.strikes.effective, len(pace.strikes.all))
        await asyncio.sleep(0.5)


def main() -> int:
    """Reads what is asked for from the environment; returns the exit status."""
    orders = int(os.environ.get("ORDERS") or 2000)
    faults = int(os.environ.get("FAULTS") or 20)
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1_000_000))
    provider: Provider = "stripe" if os.environ.get("PROVIDER") == "stripe" else "simulated"
    folder = ROOT / "var" / "faults" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-seed-{seed}"
    folder.mkdir(parents=True)
    say = Console().print
    say(f"{orders:,} orders, {faults:,} faults, SEED={seed}, provider {provider}; all is kept in {folder}")
    try:
        report = uvloop.run(soak(orders, faults, seed, provider, folder))
    except (NoDocker, NoEarlierVersion, MigrationFailed, NotServing, SystemStalled) as error:
        sys.exit(str(error))
    page = report.write(folder)
    say(report.markdown(), markup=False, soft_wrap=True)
    say(f"The report is in {page}.")
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
