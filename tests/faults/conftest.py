"""The system of the fault run: one for all tests, under a light load from the first to the last."""

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
from tests.faults.load import Load, OrderGenerator
from tests.faults.replica import ROOT, NotServing
from tests.faults.strikes import Strikes
from tests.faults.vitals import Vitals

CLIENTS = 4
PAUSE = 0.12
"""Seconds between two orders of a client."""


@dataclass
class Run:
    """A running system with its load, and the records of the run."""

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

    async def pause() -> None:
        await asyncio.sleep(PAUSE)

    async with AsyncExitStack() as stack:
        try:
            system = await stack.enter_async_context(cluster(folder))
        except (NoDocker, NoEarlierVersion, NotServing) as error:
            pytest.exit(str(error), returncode=1)
        history = History(folder / "history.jsonl")
        stack.callback(history.close)
        order_generator = OrderGenerator(random.Random(1), "faults", undeliverable=0.25)
        load = Load(history, order_generator, system.port, sys.maxsize, pause, random.Random(1))
        vitals = Vitals(system)
        watching = asyncio.create_task(vitals.watch())
        placing = asyncio.create_task(load.run(CLIENTS))
        yield Run(system, history, Strikes(system), vitals, load, placing)
        load.target = 0
        watching.cancel()
        await asyncio.gather(placing, watching, return_exceptions=True)
