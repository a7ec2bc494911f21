"""One measurement: places orders, waits for the last mail, and counts rows, time, CPU and memory."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import quantiles
from typing import Any, Final

import asyncpg

from bench import load, meters
from bench.load import Answers
from bench.meters import Usage
from bench.servers import Servers, Workspace
from bench.systems import Running, Tables

MAILS_PER_ORDER: Final = 4
TIMELINE_PER_ORDER: Final = 4
SERVERS: Final = ("PostgreSQL", "RabbitMQ")
"""The servers, measured beside a system's own processes."""
DRAIN_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 0.2


class CountsAreWrong(Exception):
    """The rows of a system are not those of the placed orders."""


@dataclass(frozen=True)
class Latency:
    """Percentiles in milliseconds."""

    p50: float
    p99: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Latency":
        """Computes the percentiles of these seconds."""
        cuts = quantiles(seconds, n=100, method="inclusive")
        return cls(1000 * cuts[49], 1000 * cuts[98])


@dataclass(frozen=True)
class Measurement:
    """The result of one measurement."""

    orders: int
    seconds: float
    """From the first request to the last mail."""
    per_second: float
    post: Latency
    end_to_end: Latency
    """From an order's acceptance to its last mail."""
    cpu: dict[str, float]
    """Milliseconds of one core per order: `services`, `PostgreSQL`, `RabbitMQ`."""
    cpu_of: dict[str, float]
    """The same for each of the system's processes."""
    memory: dict[str, float]
    """MiB of each process and server at the end."""
    replaced: int = 0
    """The number of connections that the system closed between two orders."""

    @property
    def cpu_total(self) -> float:
        """Milliseconds of one core per order, services and servers together."""
        return sum(self.cpu.values())

    def document(self) -> dict[str, Any]:
        """Returns the fields for `results.json`."""
        return asdict(self) | {"cpu_total": self.cpu_total}


class SystemDatabase:
    """Counts what a system has done, in its tables."""

    def __init__(self, connection: "asyncpg.Connection[Any]", tables: Tables) -> None:
        self._connection = connection
        self._tables = tables

    async def rows(self) -> dict[str, int]:
        """Counts the rows of each table."""
        found = {}
        for name, table in vars(self._tables).items():
            found[name] = await self._connection.fetchval(f"SELECT count(*) FROM {table}")
        return found

    async def mails(self, since: float) -> int:
        """Counts the mails recorded as sent since this time of the wall clock."""
        query = f"SELECT count(*) FROM {self._tables.mails} WHERE sent_at >= to_timestamp($1)"
        count: int = await self._connection.fetchval(query, since)
        return count

    async def shipped(self) -> int:
        """Counts the shipped orders."""
        query = f"SELECT count(*) FROM {self._tables.timeline} WHERE type = 'SHIPPED'"
        count: int = await self._connection.fetchval(query)
        return count

    async def last_mail(self) -> float:
        """Returns when the last mail was recorded, by the wall clock."""
        last: float = await self._connection.fetchval(
            f"SELECT extract(epoch FROM max(sent_at))::float8 FROM {self._tables.mails}"
        )
        return last

    async def end_to_end(self, since: float) -> list[float]:
        """Returns the seconds from each order's acceptance to its last mail."""
        found = await self._connection.fetch(
            f"""
            SELECT extract(epoch FROM max(m.sent_at) - o.created_at)::float8 AS took
            FROM {self._tables.orders} o JOIN {self._tables.mails} m ON m.order_id = o.id
            WHERE o.created_at >= to_timestamp($1) GROUP BY o.id, o.created_at""",
            since,
        )
        return [record["took"] for record in found]


class UsageRecorder:
    """Measures what a system and its servers use from now on."""

    def __init__(self, alive: Running, servers: Servers) -> None:
        self._alive, self._servers = alive, servers
        self._before = self._read()

    def _read(self) -> dict[str, Usage]:
        return self._alive.usage() | {
            "PostgreSQL": self._servers.postgres(),
            "RabbitMQ": self._servers.rabbitmq(),
        }

    def used(self) -> dict[str, Usage]:
        """Returns CPU since this object was made, and memory now, by process and server."""
        return {
            name: Usage(usage.cpu - self._before[name].cpu, usage.memory)
            for name, usage in self._read().items()
            if name in self._before
        }


async def measure(
    alive: Running,
    workspace: Workspace,
    servers: Servers,
    place_orders: Callable[[], Any],
    orders: int,
    progress: Callable[[str, int], None],
) -> Measurement:
    """Calls `place_orders` and waits for the last mail. Raises CountsAreWrong."""
    connection = await asyncpg.connect(workspace.database_url)
    try:
        database = SystemDatabase(connection, alive.system.tables)
        before = await database.rows()
        used = UsageRecorder(alive, servers)
        answers: Answers = await place_orders()
        await _wait_for_mails(alive, database, answers, orders, progress)
        usages = used.used()
        seconds = await database.last_mail() - answers.began
        await _check_rows(database, before, orders)
        waits = await database.end_to_end(answers.began)
    finally:
        await connection.close()
    return _measurement(orders, seconds, answers, waits, usages)


async def _wait_for_mails(
    alive: Running,
    database: SystemDatabase,
    answers: Answers,
    orders: int,
    progress: Callable[[str, int], None],
) -> None:
    """Waits until every mail is recorded."""
    deadline = time.monotonic() + DRAIN_SECONDS
    expected = MAILS_PER_ORDER * orders
    while True:
        asked = time.monotonic()
        if (mails := await database.mails(answers.began)) >= expected:
            return
        alive.check()
        if asked > deadline:
            raise CountsAreWrong(
                f"{alive.system.name}: {mails} of {expected} mails in {DRAIN_SECONDS:.0f} s."
            )
        progress("mails", mails)
        took = time.monotonic() - asked  # counting reads the whole table, and must not slow the system
        await asyncio.sleep(max(_POLL_SECONDS, 10 * took))


async def _check_rows(database: SystemDatabase, before: dict[str, int], orders: int) -> None:
    """Checks that each table gained exactly the rows of these orders. Timelines may take ten seconds more."""
    expected = {name: count + orders for name, count in before.items()}
    expected["mails"] = before["mails"] + MAILS_PER_ORDER * orders
    expected["timeline"] = before["timeline"] + TIMELINE_PER_ORDER * orders
    deadline = time.monotonic() + 10
    while (found := await database.rows()) != expected:
        if time.monotonic() > deadline:
            wrong = {name: (found[name], expected[name]) for name in found if found[name] != expected[name]}
            raise CountsAreWrong(f"Rows found and expected: {wrong}.")
        await asyncio.sleep(_POLL_SECONDS)


def _measurement(
    orders: int, seconds: float, answers: Answers, waits: list[float], usages: dict[str, Usage]
) -> Measurement:
    of_processes = [usage for name, usage in usages.items() if name not in SERVERS]
    cpu = {name: 1000 * usages[name].cpu / orders for name in SERVERS}
    return Measurement(
        orders=orders,
        seconds=seconds,
        per_second=orders / seconds,
        post=Latency.of(answers.seconds),
        end_to_end=Latency.of(waits),
        cpu={"services": 1000 * meters.total(of_processes).cpu / orders} | cpu,
        cpu_of={name: 1000 * usage.cpu / orders for name, usage in usages.items() if name not in SERVERS},
        memory={name: usage.memory for name, usage in usages.items()},
        replaced=answers.replaced,
    )


async def measure_closed(
    alive: Running,
    workspace: Workspace,
    servers: Servers,
    connections: int,
    orders: int,
    progress: Callable[[str, int], None],
) -> Measurement:
    """Measures at saturation: each connection sends its next order after the answer to its last."""

    async def place_orders() -> Answers:
        return await load.closed_loop(alive.port, connections, orders, lambda n: progress("orders", n))

    return await measure(alive, workspace, servers, place_orders, orders, progress)


async def measure_open(
    alive: Running,
    workspace: Workspace,
    servers: Servers,
    per_second: float,
    orders: int,
    progress: Callable[[str, int], None],
) -> Measurement:
    """Measures at a steady rate, far from saturation."""

    async def place_orders() -> Answers:
        return await load.open_loop(alive.port, per_second, orders)

    return await measure(alive, workspace, servers, place_orders, orders, progress)
