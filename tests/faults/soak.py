"""`make soak`: strikes a random schedule of faults under load, then checks everything and writes a report.

ORDERS, FAULTS and SEED set the size and the schedule; the default is a short run with a random seed, which it
prints.
"""

import asyncio
import os
import random
import sys
import time
from collections.abc import Sequence
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
from tests.faults.load import Load, order_generator
from tests.faults.progress import Progress, progress
from tests.faults.replica import ROOT, NotServing
from tests.faults.report import Report
from tests.faults.strikes import Strikes
from tests.faults.verdict import judge
from tests.faults.vitals import Vitals

CLIENTS: Final = 32
AT_ONCE: Final = 6
"""Most faults at a time."""
MAX_UNFINISHED: Final = 1500
"""Most unfinished orders: the load waits for the system, as its customers would."""
MAX_LEAD: Final = 0.03
"""How far the load may be ahead of the faults, as a share of the whole run."""
STALLED_SECONDS: Final = 300.0
"""The run is stalled if no order has ended for so long while some are unfinished; no fault lasts as long."""
DRAIN_SECONDS: Final = 600.0
"""Generous: reconcile may have to read every outbox to find events that a queue lost."""


class SystemStalled(Exception):
    """Orders are unfinished, and none has ended for minutes."""


@dataclass
class Pace:
    """Keeps load and faults in step, so that both are spread over the whole run."""

    orders: int
    faults: int
    strikes: Strikes
    history: History
    ended: int = 0
    """Orders that have ended."""
    progressed_at: float = field(default_factory=time.monotonic)
    """The last time that an order ended, or that none was unfinished."""
    watchers: Sequence[asyncio.Task[None]] = ()
    """The load, and tasks that watch the system until they are cancelled."""

    async def wait_to_place(self) -> None:
        """Returns when the next order may be placed."""
        while self._is_far_ahead() or self.history.accepted - self.ended > MAX_UNFINISHED:
            await asyncio.sleep(0.05)

    def faults_due(self) -> int:
        """The number of faults that should have had their effect by now."""
        return min(self.faults, 1 + int(self.faults * self.history.accepted / self.orders))

    def is_over(self) -> bool:
        """Whether enough faults have had their effect and enough orders are accepted."""
        return self.strikes.effective >= self.faults and self.history.accepted >= self.orders

    async def watch(self, system: Cluster) -> None:
        """Counts the orders that have ended, until cancelled."""
        while True:
            asked = time.monotonic()
            ended = await quiet.ended_orders(system)
            if ended > self.ended or ended >= self.history.accepted:
                self.progressed_at = asked
            self.ended = ended
            took = time.monotonic() - asked
            await asyncio.sleep(min(max(1.0, 20 * took), 10.0))  # counting takes longer with more orders

    def check(self) -> None:
        """Raises SystemStalled if the system has stopped working: the load would wait for ever.

        Raises the error of a watcher that has ended: without its count the load would wait for ever, too.
        """
        for task in self.watchers:
            if task.done():
                task.result()
        if time.monotonic() - self.progressed_at > STALLED_SECONDS:
            raise SystemStalled(f"{SystemStalled.__doc__} ({self.history.accepted - self.ended} orders)")

    def _is_far_ahead(self) -> bool:
        if not self.faults or self.strikes.effective >= self.faults:
            return False
        struck = (self.strikes.effective + AT_ONCE) / self.faults
        return self.history.accepted / self.orders > struck + MAX_LEAD


async def soak(orders: int, faults: int, seed: int, provider: Provider, folder: Path) -> Report:
    """Runs the soak and returns its report."""
    began = time.monotonic()
    report = Report(seed=seed, provider=provider)
    async with AsyncExitStack() as stack:
        system = await stack.enter_async_context(cluster(folder, provider=provider))
        history = History(folder / "history.jsonl")
        stack.callback(history.close)
        strikes = Strikes(system)
        vitals = Vitals(system)
        pace = Pace(orders, faults, strikes, history)
        load = Load(
            history,
            order_generator(seed, f"s{seed}"),
            system.port,
            sys.maxsize,
            pace.wait_to_place,
            random.Random(seed),
        )
        shown = stack.enter_context(progress(orders, faults))
        placing = asyncio.create_task(load.run(CLIENTS))
        pace.watchers = [
            placing,
            asyncio.create_task(vitals.watch()),
            asyncio.create_task(pace.watch(system)),
            asyncio.create_task(_show(shown, pace)),
        ]
        try:
            await _strike_all(pace, seed, provider)
            while not pace.is_over():
                pace.check()
                await asyncio.sleep(0.2)
            load.target = 0
            await placing
            shown.say("The last order is placed and the last fault healed; waiting for the system to finish.")
            await judge(report, system, history, strikes, vitals, drain_seconds=DRAIN_SECONDS)
            if not report.holds:
                shown.say("Not every invariant holds: dumping the database.")
                await system.dump_database()
        finally:
            for task in pace.watchers:
                task.cancel()
            await asyncio.gather(*pace.watchers, return_exceptions=True)
    report.seconds = time.monotonic() - began
    return report


async def _strike_all(pace: Pace, seed: int, provider: Provider) -> None:
    """Strikes the faults that are due, several at a time, until enough have had their effect."""
    running: set[asyncio.Task[object]] = set()
    for kind, fault, targets in catalogue.schedule(seed, provider):
        while len(running) >= AT_ONCE or pace.strikes.effective + len(running) >= pace.faults_due():
            if pace.strikes.effective >= pace.faults:
                await asyncio.gather(*running)
                return
            pace.check()
            await asyncio.sleep(0.05)
            for task in [task for task in running if task.done()]:
                running.discard(task)
                await task
        running.add(asyncio.create_task(pace.strikes.strike(fault, kind.name, targets)))


async def _show(shown: Progress, pace: Pace) -> None:
    while True:
        shown.update(pace.history.accepted, pace.ended, pace.strikes.effective, len(pace.strikes.all))
        await asyncio.sleep(0.5)


def main() -> int:
    """Runs the soak that the environment asks for; returns the exit status."""
    orders = int(os.environ.get("ORDERS") or 2000)
    faults = int(os.environ.get("FAULTS") or 20)
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1_000_000))
    provider: Provider = "stripe" if os.environ.get("PROVIDER") == "stripe" else "simulated"
    folder = ROOT / "var" / "faults" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-seed-{seed}"
    folder.mkdir(parents=True)
    say = Console().print
    say(f"{orders:,} orders, {faults:,} faults, SEED={seed}, provider {provider}; results in {folder}")
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
