"""Round trips to PostgreSQL: what a lone order costs, counted on the wire between a system and its database.

The server ends each answer that a client waits for with ReadyForQuery: those are the round trips, whatever a
client puts into one (PostgreSQL's documentation, "Frontend/Backend Protocol", "Message Flow").
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
from bench.servers import Place, Servers
from bench.systems import System, running

ORDERS: Final = 20
PER_SECOND: Final = 2.0
"""So few that each order is alone."""
_SETTLE_SECONDS: Final = 1.0
"""After an order's last mail: what follows it is counted too."""
_ENCRYPTION_REQUESTS: Final = (80877103, 80877104)
"""SSLRequest and GSSENCRequest, which come instead of a protocol version."""
Server: TypeAlias = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Connects to it."""
_BLOCK: Final = 1 << 16


@dataclass
class Trips:
    """What a user of the database has had done."""

    round_trips: float = 0
    statements: float = 0
    """Without `BEGIN`, `COMMIT` and `ROLLBACK`."""
    transactions: float = 0
    """Ended; a statement outside of any is one."""

    def __add__(self, other: "Trips") -> "Trips":
        return Trips(*map(add, astuple(self), astuple(other)))

    def __sub__(self, other: "Trips") -> "Trips":
        return Trips(*map(sub, astuple(self), astuple(other)))

    def __truediv__(self, orders: int) -> "Trips":
        return Trips(*(number / orders for number in astuple(self)))


class Answers:
    """Reads what the server sends on one connection, and counts."""

    def __init__(self, trips: Trips) -> None:
        self._trips = trips
        self._buffer = bytearray()
        self._worked = False

    def feed(self, data: bytes) -> None:
        """Bytes as they come, in any pieces."""
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
class Wire:
    """A way to a database that counts, by user."""

    prefix: str
    """Of the users' names, and left out: the database's."""
    by_user: dict[str, Trips] = field(default_factory=dict)

    def snapshot(self) -> dict[str, Trips]:
        """What was counted until now."""
        return {user: replace(trips) for user, trips in self.by_user.items()}

    async def connect(self, to: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Joins a client to the server until one of them ends."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            startup = await _startup(reader, writer)
            from_server, to_server = await to()
            to_server.write(startup)
            answers = Answers(self.by_user.setdefault(_user(startup).removeprefix(self.prefix), Trips()))
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
    """The client's first message, after it was told that nothing is encrypted."""
    while True:
        head = await reader.readexactly(8)
        length, code = struct.unpack("!II", head)
        if code not in _ENCRYPTION_REQUESTS:
            return head + await reader.readexactly(length - 8)
        writer.write(b"N")


def _user(startup: bytes) -> str:
    words = startup[8:].split(b"\0")
    return dict(zip(words[::2], words[1::2], strict=False)).get(b"user", b"").decode()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: Answers | None) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(_BLOCK):
            if answers:
                answers.feed(data)
            writer.write(data)
            await writer.drain()


def _server(url: SplitResult) -> Server:
    """At a host and port, or by the socket in the folder that the URL names as `host`."""
    if url.hostname:
        return partial(asyncio.open_connection, url.hostname, url.port or 5432)
    asked = parse_qs(url.query)
    name = f".s.PGSQL.{asked.get('port', ['5432'])[0]}"
    return partial(asyncio.open_unix_connection, Path(asked["host"][0]) / name)


@asynccontextmanager
async def counted(place: Place) -> AsyncIterator[tuple[Place, Wire]]:
    """The same place by a way that counts."""
    url = urlsplit(place.database_url)
    server = _server(url)
    wire = Wire(prefix=f"{url.path[1:]}_")
    joined: set[asyncio.Task[None]] = set()

    def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(wire.connect(server, reader, writer))
        joined.add(task)
        task.add_done_callback(joined.discard)

    async with await asyncio.start_server(join, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        account = url.netloc.rpartition("@")[0]
        through = urlunsplit(url._replace(netloc=f"{account}@127.0.0.1:{port}", query=""))
        try:
            yield replace(place, database_url=through), wire
        finally:
            for task in joined:
                task.cancel()
            await asyncio.gather(*joined, return_exceptions=True)


async def of_lone_orders(
    system: System, servers: Servers, logs: Path, progress: Progress
) -> dict[str, Trips]:
    """What an order costs while there is no other, by user of the database."""
    async with servers.place() as place, counted(place) as (through, wire):
        await system.set_up(place, logs)
        async with running(system, through, logs) as alive:

            async def orders() -> None:
                await measure_open(alive, place, servers, PER_SECOND, ORDERS, progress)
                await asyncio.sleep(_SETTLE_SECONDS)

            await orders()  # statements are prepared, connections made
            began, before = asyncio.get_running_loop().time(), wire.snapshot()
            await orders()
            took, after = asyncio.get_running_loop().time() - began, wire.snapshot()
            await asyncio.sleep(took)
            return cost(before, after, wire.snapshot(), ORDERS)


def cost(
    before: Mapping[str, Trips], after: Mapping[str, Trips], idle: Mapping[str, Trips], orders: int
) -> dict[str, Trips]:
    """By user: from `before` to `after` there were orders, from then to `idle` as long a time without."""
    return {
        user: ((seen - before.get(user, Trips())) - (idle[user] - seen)) / orders
        for user, seen in after.items()
    }
