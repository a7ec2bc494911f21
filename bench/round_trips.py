"""The cost of a lone order at PostgreSQL, counted on the wire between a system and its database.

The server ends each answer that a client waits for with ReadyForQuery, so each of those is one round trip
(PostgreSQL's documentation, "Frontend/Backend Protocol", "Message Flow").
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import astuple, dataclass, field, replace
from functools import partial
from operator import add, sub
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import SplitResult, parse_qs, urlsplit, urlunsplit

from bench.measure import measure_open
from bench.rounds import Progress
from bench.servers import Servers, Workspace
from bench.systems import System, running

ORDERS: Final = 20
PER_SECOND: Final = 2.0
"""A rate at which each order is alone in the system."""
_SETTLE_SECONDS: Final = 1.0
"""How long to count after the last mail, for the work that follows it."""
_ENCRYPTION_REQUESTS: Final = (80877103, 80877104)
"""The codes of SSLRequest and GSSENCRequest, sent in place of a protocol version."""
Server: TypeAlias = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Connects to the database server."""
_BLOCK: Final = 1 << 16


@dataclass
class Cost:
    """The work that the database does for one of its users."""

    round_trips: float = 0
    statements: float = 0
    """Except `BEGIN`, `COMMIT` and `ROLLBACK`."""
    transactions: float = 0
    """Ended transactions. A statement outside of a transaction counts as one."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*map(add, astuple(self), astuple(other)))

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(*map(sub, astuple(self), astuple(other)))

    def __truediv__(self, orders: int) -> "Cost":
        return Cost(*(number / orders for number in astuple(self)))


class AnswerCounter:
    """Parses the server's messages on one connection, and counts."""

    def __init__(self, trips: Cost) -> None:
        self._trips = trips
        self._buffer = bytearray()
        self._worked = False

    def feed(self, data: bytes) -> None:
        """Takes the next bytes, in pieces of any size."""
        self._buffer += data
        at = 0
        while len(self._buffer) >= at + 5:
            end = at + 1 + struct.unpack_from("!I", self._buffer, at + 1)[0]
            if len(self._buffer) < end:
                break
            self._count(self._buffer[at : at + 1], bytes(self._buffer[at + 5 : end]))
            at = end
        del self._buffer[:at]

    def _count(self, kind: bytes | bytearray, body: bytes) -> None:
        if kind == b"C":  # CommandComplete: a tag, such as "INSERT 0 1"
            self._worked = True
            self._trips.statements += body.rstrip(b"\0") not in (b"BEGIN", b"COMMIT", b"ROLLBACK")
        elif kind == b"Z":  # ReadyForQuery: I outside a transaction, T inside, E inside a failed one
            self._trips.round_trips += 1
            if body == b"I" and self._worked:
                self._trips.transactions += 1
                self._worked = False


@dataclass
class CountingProxy:
    """A proxy to a database that counts the cost by user."""

    prefix: str
    """The start of all users' names (the database's name), removed in `by_user`."""
    by_user: dict[str, Cost] = field(default_factory=dict)

    def snapshot(self) -> dict[str, Cost]:
        """Copies the counts so far."""
        return {user: replace(trips) for user, trips in self.by_user.items()}

    async def connect(self, to: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Copies between a client and the server until one of them disconnects."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            startup = await _startup(reader, writer)
            from_server, to_server = await to()
            to_server.write(startup)
            answers = AnswerCounter(self.by_user.setdefault(_user(startup).removeprefix(self.prefix), Cost()))
            copies = [
                asyncio.create_task(_copy(reader, to_server, None)),
                asyncio.create_task(_copy(from_server, writer, answers)),
            ]
            try:
                await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for copy in copies:
                    copy.cancel()
                await asyncio.wait(copies)
                to_server.close()
        writer.close()


async def _startup(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Declines encryption, and returns the client's startup message."""
    while True:
        head = await reader.readexactly(8)
        length, code = struct.unpack("!II", head)
        if code not in _ENCRYPTION_REQUESTS:
            return head + await reader.readexactly(length - 8)
        writer.write(b"N")


def _user(startup: bytes) -> str:
    words = startup[8:].split(b"\0")
    return dict(zip(words[::2], words[1::2], strict=False)).get(b"user", b"").decode()


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: AnswerCounter | None
) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(_BLOCK):
            if answers:
                answers.feed(data)
            writer.write(data)
            await writer.drain()


def _server(url: SplitResult) -> Server:
    """Connects to the URL's host and port, or to the socket in the folder that its query names as `host`."""
    if url.hostname:
        return partial(asyncio.open_connection, url.hostname, url.port or 5432)
    asked = parse_qs(url.query)
    name = f".s.PGSQL.{asked.get('port', ['5432'])[0]}"
    return partial(asyncio.open_unix_connection, Path(asked["host"][0]) / name)


@asynccontextmanager
async def counting_proxy(workspace: Workspace) -> AsyncIterator[tuple[Workspace, CountingProxy]]:
    """Opens a counting proxy, and yields the workspace with the proxy's address."""
    url = urlsplit(workspace.database_url)
    server = _server(url)
    proxy = CountingProxy(prefix=f"{url.path[1:]}_")
    connections: set[asyncio.Task[None]] = set()

    def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.connect(server, reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    async with await asyncio.start_server(join, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        account = url.netloc.rpartition("@")[0]
        through = urlunsplit(url._replace(netloc=f"{account}@127.0.0.1:{port}", query=""))
        try:
            yield replace(workspace, database_url=through), proxy
        finally:
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)


async def of_lone_orders(system: System, servers: Servers, logs: Path, progress: Progress) -> dict[str, Cost]:
    """Measures the cost of an order that is alone in the system, by user of the database."""
    async with servers.workspace() as workspace, counting_proxy(workspace) as (through, proxy):
        await system.set_up(workspace, logs)
        async with running(system, through, logs) as alive:

            async def orders() -> None:
                await measure_open(alive, workspace, servers, PER_SECOND, ORDERS, progress)
                await asyncio.sleep(_SETTLE_SECONDS)

            await orders()  # the first orders open connections and prepare statements
            began, before = asyncio.get_running_loop().time(), proxy.snapshot()
            await orders()
            took, after = asyncio.get_running_loop().time() - began, proxy.snapshot()
            await asyncio.sleep(took)
            return cost_per_order(before, after, proxy.snapshot(), ORDERS)


def cost_per_order(
    before: Mapping[str, Cost],
    after: Mapping[str, Cost],
    idle: Mapping[str, Cost],
    orders: int,
) -> dict[str, Cost]:
    """Returns the cost per order, by user.

    There were orders between `before` and `after`, and none in the equally long time from `after` to `idle`.
    """
    return {
        user: ((seen - before.get(user, Cost())) - (idle[user] - seen)) / orders
        for user, seen in after.items()
    }
