"""Measurements of Orderflow alone: large tables, a backlog, replicas, a slow provider, one process."""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import asyncpg

from bench import load
from bench.measure import MAILS_PER_ORDER, SERVERS, Measurement, SystemDatabase, measure_closed
from bench.rounds import Progress, Say
from bench.servers import Servers, Workspace
from bench.systems import System, orderflow, running, start

CONNECTIONS: Final = 128
STEP: Final = 10_000
WARM_UP: Final = 500
SLOW_MS: Final = 300
SLOW_CALLS: Final = 1000
"""The maximum number of concurrent calls to the slow provider."""

Scenario = Callable[[Servers, Path, argparse.Namespace, Say, Progress], Awaitable[dict[str, Any]]]


async def growth(
    servers: Servers, logs: Path, chosen: argparse.Namespace, say: Say, progress: Progress
) -> dict[str, Any]:
    """Measures CPU per order and memory as the tables grow from empty."""
    steps: list[dict[str, Any]] = []
    system = orderflow()
    async with servers.workspace() as workspace:
        await system.set_up(workspace, logs)
        async with running(system, workspace, logs) as alive:
            await measure_closed(alive, workspace, servers, CONNECTIONS, WARM_UP, progress)
            for end in range(STEP, chosen.growth + 1, STEP):
                seen = await measure_closed(alive, workspace, servers, CONNECTIONS, STEP, progress)
                steps.append(seen.document() | {"orders_in_tables": end + WARM_UP})
                say(f"  {end:>7,} orders: {seen.per_second:7.1f}/s, {seen.cpu_total:.2f} ms of CPU an order")
    first, last = steps[0], steps[-1]
    grown = {
        name: round(last["memory"][name] - first["memory"][name], 1)
        for name in first["memory"]
        if name not in SERVERS
    }
    summary = (
        f"{first['cpu_total']:.2f} ms an order in the first {STEP:,}, {last['cpu_total']:.2f} in the last; "
        f"memory grew by MiB {grown}"
    )
    return {"steps": steps, "summary": summary}


async def backlog(
    servers: Servers, logs: Path, chosen: argparse.Namespace, say: Say, progress: Progress
) -> dict[str, Any]:
    """Ships 25,000 orders without the email service, then measures how fast it handles 100,000 events."""
    orders = min(25_000, chosen.growth)
    events = MAILS_PER_ORDER * orders
    system = orderflow()
    async with servers.workspace() as workspace:
        await system.set_up(workspace, logs)
        async with running(system, workspace, logs, without=["email"]) as alive:
            await _shipped(workspace, system, alive.port, orders, progress)
            say(f"  {orders:,} orders shipped while email was away")
            connection = await asyncpg.connect(workspace.database_url)
            try:
                database = SystemDatabase(connection, system.tables)
                began = time.time()
                await start(alive, workspace, logs, "email")
                peak_memory = 0.0
                while (mails := await database.mails(began)) < events:
                    alive.check()
                    progress("mails", mails)
                    peak_memory = max(peak_memory, alive.usage()["email"].memory)
                    await asyncio.sleep(0.5)
                seconds = await database.last_mail() - began
            finally:
                await connection.close()
    rate = events / seconds
    summary = f"{events:,} events in {seconds:.1f} s, {rate:,.0f}/s; at most {peak_memory:.0f} MiB"
    return {
        "events": events,
        "seconds": seconds,
        "per_second": rate,
        "memory": peak_memory,
        "summary": summary,
    }


async def _shipped(workspace: Workspace, system: System, port: int, orders: int, progress: Progress) -> None:
    await load.closed_loop(port, CONNECTIONS, orders, lambda n: progress("orders", n))
    connection = await asyncpg.connect(workspace.database_url)
    try:
        database = SystemDatabase(connection, system.tables)
        while (shipped := await database.shipped()) < orders:
            progress("shipped", shipped)
            await asyncio.sleep(0.5)
    finally:
        await connection.close()


async def replicas(
    servers: Servers, logs: Path, chosen: argparse.Namespace, say: Say, progress: Progress
) -> dict[str, Any]:
    """Runs two processes of each service, and measures how they share the work."""
    seen = await _once(orderflow(), servers, logs, chosen.orders, progress, replicas=2)
    shares = {
        service: seen.cpu_of[f"{service}-2"] / (seen.cpu_of[service] + seen.cpu_of[f"{service}-2"])
        for service in ("invoice", "billing", "shipment", "email")
    }
    percentages = ", ".join(f"{service} {100 * share:.0f} %" for service, share in shares.items())
    summary = f"{seen.per_second:,.0f} orders/s; the second process's share of the CPU: {percentages}"
    return {"measured": seen.document(), "shares": shares, "summary": summary}


async def slow_provider(
    servers: Servers, logs: Path, chosen: argparse.Namespace, say: Say, progress: Progress
) -> dict[str, Any]:
    """Compares a payment provider that takes 300 ms with one that answers at once."""
    in_flight = {"PROVIDER_CONCURRENCY": str(SLOW_CALLS)}
    ratios, pairs = [], []
    for _ in range(chosen.rounds):
        fast = await _once(orderflow(**in_flight), servers, logs, chosen.orders, progress)
        slow_settings = in_flight | {"SIMULATED_LATENCY_MS": str(SLOW_MS)}
        slow = await _once(orderflow(**slow_settings), servers, logs, chosen.orders, progress)
        pairs.append((fast.document(), slow.document()))
        ratios.append(slow.per_second / fast.per_second)
        say(f"  {fast.per_second:.0f}/s without, {slow.per_second:.0f}/s with {SLOW_MS} ms")
    middle = sorted(ratios)[len(ratios) // 2]
    summary = (
        f"{100 * middle:.0f} % of the throughput with {SLOW_MS} ms, at most {SLOW_CALLS} calls in flight"
    )
    return {"pairs": pairs, "ratio": middle, "summary": summary}


async def _once(
    system: System, servers: Servers, logs: Path, orders: int, progress: Progress, *, replicas: int = 1
) -> Measurement:
    async with servers.workspace() as workspace:
        await system.set_up(workspace, logs)
        async with running(system, workspace, logs, replicas=replicas) as alive:
            await measure_closed(alive, workspace, servers, CONNECTIONS, WARM_UP, progress)
            return await measure_closed(alive, workspace, servers, CONNECTIONS, orders, progress)


async def embedded(
    servers: Servers, logs: Path, chosen: argparse.Namespace, say: Say, progress: Progress
) -> dict[str, Any]:
    """Measures `make run`: one process, its own PostgreSQL, mails as files."""
    from bench.embedded import measure_embedded  # noqa: PLC0415

    return await measure_embedded(logs, chosen.orders, progress)


ALL: Final[Mapping[str, Scenario]] = {
    "growth": growth,
    "backlog": backlog,
    "replicas": replicas,
    "slow-provider": slow_provider,
    "embedded": embedded,
}
