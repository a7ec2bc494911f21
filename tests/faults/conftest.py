"""The system of a fault run: one for all its tests, under a gentle load from the first to the last."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from bench.earlier import NoEarlierVersion
from tests.faults.cluster import Cluster, cluster
from tests.faults.containers import NoDocker
from tests.faults.history import History
from tests.faults.load import Load, Wishes
from tests.faults.replica import ROOT, NotServing
from tests.faults.strikes import Strikes
from tests.faults.vitals import Vitals

CLIENTS = 4
PAUSE = 0.12
"""Seconds that each client waits between two orders."""


@dataclass
class Run:
    """A fault run."""

    system: Cluster
    history: History
    strikes: Strikes
    vitals: Vitals
    load: Load
    placing: "asyncio.Task[None]"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def run() -> AsyncIterator[Run]:
    """The system, under load."""
    folder = ROOT / "var" / "faults" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-every-fault-once"
    folder.mkdir(parents=True)

    async def gently() -> None:
        await asyncio.sleep(PAUSE)

    async with AsyncExitStack() as stack:
        try:
            system = await stack.enter_async_context(cluster(folder))
        except (NoDocker, NoEarlierVersion, NotServing) as error:
            pytest.exit(str(error), returncode=1)
        history = History(folder / "history.jsonl")
        stack.callback(history.close)
        wishes = Wishes(random.Random(1), "faults", undeliverable=0.15)
        load = Load(history, wishes, system.port, sys.maxsize, gently, random.Random(1))
        vitals = Vitals(system)
        watching = asyncio.create_task(vitals.watch())
        placing = asyncio.create_task(load.run(CLIENTS))
        yield Run(system, history, Strikes(system), vitals, load, placing)
        load.target = 0
        watching.cancel()
        await asyncio.gather(placing, watching, return_exceptions=True)
