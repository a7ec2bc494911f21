"""One measurement: so many orders go in, and everything is counted once the last mail is recorded."""

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
from bench.servers import Place, Servers
from bench.systems import Running, Tables

MAILS_PER_ORDER: Final = 4
TIMELINE_PER_ORDER: Final = 4
SERVERS: Final = ("PostgreSQL", "RabbitMQ")
"""What is measured beside a system's own processes."""
DRAIN_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 0.2


class CountsAreWrong(Exception):
    """What a system has done is not what it was asked for."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds."""

    p50: float
    p99: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Latency":
        """Of so many waits."""
        cuts = quantiles(seconds, n=100, method="inclusive")
        return cls(1000 * cuts[49], 1000 * cuts[98])


@dataclass(frozen=True)
class Measured:
    """What was seen."""

    orders: int
    seconds: float
    """From the first request to the last mail."""
    per_second: float
    post: Latency
    end_to_end: Latency
    """From an order's acceptance to the last of its mails."""
    cpu: dict[str, float]
    """Milliseconds of one core per order: `services`, `PostgreSQL`, `RabbitMQ`."""
    cpu_of: dict[str, float]
    """The same, of each of its processes."""
    memory: dict[str, float]
    """MiB of each process at the end, and of both servers."""
    replaced: int = 0
    """Connections that the system closed between two orders."""

    @property
    def cpu_total(self) -> float:
        """Milliseconds of one core per order, all together."""
        return sum(self.cpu.values())

    def document(self) -> dict[str, Any]:
        """For the file of results."""
        return asdict(self) | {"cpu_total": self.cpu_total}


class Counter:
    """What a system's database tells from outside."""

    def __init__(self, connection: "asyncpg.Connection[Any]", tables: Tables) -> None:
        self._connection = connection
        self._tables = tables

    async def rows(self) -> dict[str, int]:
        """How many rows each of its tables has."""
        found = {}
        for name, table in vars(self._tables).items():
            found[name] = await self._connection.fetchval(f"SELECT count(*) FROM {table}")
        return found

    async def mails(self, since: float) -> int:
        """How many mails were recorded as sent since that moment of the wall clock."""
        query = f"SELECT count(*) FROM {self._tables.mails} WHERE sent_at >= to_timestamp($1)"
        count: int = await self._connection.fetchval(query, since)
        return count

    async def shipped(self) -> int:
        """How many orders are at their end."""
        query = f"SELECT count(*) FROM {self._tables.timeline} WHERE type = 'SHIPPED'"
        count: int = await self._connection.fetchval(query)
        return count

    async def last_mail(self) -> float:
        """When the last mail was recorded, by the wall clock."""
        last: float = await self._connection.fetchval(
            f"SELECT extract(epoch FROM max(sent_at))::float8 FROM {self._tables.mails}"
        )
        return last

    async def end_to_end(self, since: float) -> list[float]:
        """Seconds from each order's acceptance to the last of its mails."""
        found = await self._connection.fetch(
            f"""
            SELECT extract(epoch FROM max(m.sent_at) - o.created_at)::float8 AS took
            FROM {self._tables.orders} o JOIN {self._tables.mails} m ON m.order_id = o.id
            WHERE o.created_at >= to_timestamp($1) GROUP BY o.id, o.created_at""",
            since,
        )
        return [record["took"] for record in found]


class Meters:
    """What a system and its servers use from one moment to another."""

    def __init__(self, alive: Running, servers: Servers) -> None:
        self._alive, self._servers = alive, servers
        self._before = self._read()

    def _read(self) -> dict[str, Usage]:
        return self._alive.usage() | {
            "PostgreSQL": self._servers.postgres(),
            "RabbitMQ": self._servers.rabbitmq(),
        }

    def used(self) -> dict[str, Usage]:
        """CPU since this was made, and memory now, by process and server."""
        return {
            name: Usage(usage.cpu - self._before[name].cpu, usage.memory)
            for name, usage in self._read().items()
            if name in self._before
        }


async def measure(
    alive: Running,
    place: Place,
    servers: Servers,
    ask: Callable[[], Any],
    orders: int,
    progress: Callable[[str, int], None],
) -> Measured:
    """Places the orders by `ask` and waits for the last mail. Raises CountsAreWrong."""
    connection = await asyncpg.connect(place.database_url)
    try:
        counter = Counter(connection, alive.system.tables)
        before = await counter.rows()
        used = Meters(alive, servers)
        answers: Answers = await ask()
        await _drained(alive, counter, answers, orders, progress)
        usages = used.used()
        seconds = await counter.last_mail() - answers.began
        await _check(counter, before, orders)
        waits = await counter.end_to_end(answers.began)
    finally:
        await connection.close()
    return _measured(orders, seconds, answers, waits, usages)


async def _drained(
    alive: Running,
    counter: Counter,
    answers: Answers,
    orders: int,
    progress: Callable[[str, int], None],
) -> None:
    """Returns when every mail is recorded."""
    deadline = time.monotonic() + DRAIN_SECONDS
    expected = MAILS_PER_ORDER * orders
    while True:
        asked = time.monotonic()
        if (mails := await counter.mails(answers.began)) >= expected:
            return
        alive.check()
        if asked > deadline:
            raise CountsAreWrong(
                f"{alive.system.name}: {mails} of {expected} mails in {DRAIN_SECONDS:.0f} s."
            )
        progress("mails", mails)
        took = time.monotonic() - asked  # it counts the whole table, and must not be felt itself
        await asyncio.sleep(max(_POLL_SECONDS, 10 * took))


async def _check(counter: Counter, before: dict[str, int], orders: int) -> None:
    """Every table has exactly the rows of these orders, once the order's own record is there too."""
    expected = {name: count + orders for name, count in before.items()}
    expected["mails"] = before["mails"] + MAILS_PER_ORDER * orders
    expected["timeline"] = before["timeline"] + TIMELINE_PER_ORDER * orders
    deadline = time.monotonic() + 10
    while (found := await counter.rows()) != expected:
        if time.monotonic() > deadline:
            wrong = {name: (found[name], expected[name]) for name in found if found[name] != expected[name]}
            raise CountsAreWrong(f"Rows found and expected: {wrong}.")
        await asyncio.sleep(_POLL_SECONDS)


def _measured(
    orders: int, seconds: float, answers: Answers, waits: list[float], usages: dict[str, Usage]
) -> Measured:
    of_processes = [usage for name, usage in usages.items() if name not in SERVERS]
    cpu = {name: 1000 * usages[name].cpu / orders for name in SERVERS}
    return Measured(
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
    place: Place,
    servers: Servers,
    connections: int,
    orders: int,
    progress: Callable[[str, int], None],
) -> Measured:
    """At saturation: each connection sends its next order when it has the answer to its last."""

    async def ask() -> Answers:
        return await load.closed_loop(alive.port, connections, orders, lambda n: progress("orders", n))

    return await measure(alive, place, servers, ask, orders, progress)


async def measure_open(
    alive: Running,
    place: Place,
    servers: Servers,
    per_second: float,
    orders: int,
    progress: Callable[[str, int], None],
) -> Measured:
    """At a steady rate, far from saturation."""

    async def ask() -> Answers:
        return await load.open_loop(alive.port, per_second, orders)

    return await measure(alive, place, servers, ask, orders, progress)
