"""A TCP proxy that simulates failures of a server or a network.

It cuts, refuses, silences or slows connections. It can also act at a moment of the protocol, for example
after the server has done the work and before the client has the answer. It parses PostgreSQL, AMQP, SMTP and
HTTP, and forwards other protocols unparsed.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tests.faults import peers
from tests.faults.lanes import AT_ONCE, Lane
from tests.faults.moments import Moment
from tests.faults.protocols import Parsed, Parser, parser_for_client, parser_for_server


class Proxy:
    """Forwards to one server until a fault is requested."""

    def __init__(self, server: int | str) -> None:
        """`server` is a URL or a local port."""
        parts = urlsplit(server if isinstance(server, str) else f"tcp://127.0.0.1:{server}")
        query = dict(parse_qsl(parts.query))
        self._host = query.get("host", parts.hostname or "127.0.0.1")
        """A name or an address; for PostgreSQL also the folder of its Unix socket."""
        self._server_port = int(query.get("port", parts.port or 5432))
        self.port = 0
        """The port on which it listens; it never changes."""
        self.to_server = self.to_client = AT_ONCE
        """The pace of each direction, for all connections."""
        self.delayed = 0
        """The number of reads that were delayed."""
        self.sides = 0
        """The number of open sides of connections."""
        self.watching: list[Watch] = []
        self._black_hole = False
        self._listener: asyncio.Server | None = None
        self._starting = asyncio.Lock()
        self._open: set[Connection] = set()

    @property
    def connections(self) -> int:
        """The number of working connections."""
        return sum(not connection.silent for connection in self._open)

    @property
    def silenced(self) -> int:
        """The number of silent connections."""
        return len(self._open) - self.connections

    def through(self, url: str) -> str:
        """The URL of the same server through this proxy."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name not in _ADDRESS])
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self.port}", query=query))

    async def accept(self) -> None:
        """Starts to listen, always on the same port; does nothing if it listens already."""
        async with self._starting:
            if self._listener is None:
                loop = asyncio.get_running_loop()
                self._listener = await loop.create_server(lambda: _Near(self), "127.0.0.1", self.port)
                self.port = self._listener.sockets[0].getsockname()[1]

    async def refuse(self) -> int:
        """Resets every connection and refuses new ones; returns how many it reset."""
        if self._listener:
            self._listener.close()
            self._listener = None
        return self.cut()

    def cut(self) -> int:
        """Resets every connection; returns how many it reset."""
        connections = list(self._open)
        for connection in connections:
            connection.reset()
        return len(connections)

    def silence(self, *, also_new: bool = False) -> int:
        """Makes all connections forward nothing; neither side notices if the other ends.

        With `also_new`, new connections are silent too, until `reset_silent`: a black hole.
        """
        self._black_hole = also_new
        connections = [connection for connection in self._open if not connection.silent]
        for connection in connections:
            connection.silence()
        return len(connections)

    def reset_silent(self) -> None:
        """Resets silent connections; new ones work again."""
        self._black_hole = False
        for connection in [connection for connection in self._open if connection.silent]:
            connection.reset()

    def half_open(self) -> int:
        """Resets the server's side of every connection, and silences the client's; returns how many."""
        connections = [connection for connection in self._open if not connection.silent]
        for connection in connections:
            connection.leave_half_open()
        return len(connections)

    @contextmanager
    def at(
        self,
        moment: Moment,
        then: "Callable[[Connection], None] | None" = None,
        *,
        nth: int = 1,
        of: str = "",
    ) -> "Iterator[Watch]":
        """Calls `then` with the connection on which the moment comes, the nth time that it comes.

        By default the connection is reset. If `then` does not break it, the held bytes are forwarded then.
        `of` is (a part of) the client's name: its PostgreSQL role, or the name of its AMQP connection.
        """
        watch = Watch(moment, then or Connection.reset, nth=nth, of=of)
        self.watching.append(watch)
        try:
            yield watch
        finally:
            if watch in self.watching:
                self.watching.remove(watch)

    async def cut_at(self, moment: Moment) -> None:
        """Waits until the moment comes on any connection, and resets that connection."""
        with self.at(moment) as watch:
            await watch.struck

    # Called by connections

    async def connect(self, near: "_Near") -> "Connection | None":
        """Connects to the server; None if it does not answer."""
        loop = asyncio.get_running_loop()
        try:
            if self._host.startswith("/"):
                path = f"{self._host}/.s.PGSQL.{self._server_port}"
                _, far = await loop.create_unix_connection(lambda: _Far(self), path)
            else:
                _, far = await loop.create_connection(lambda: _Far(self), self._host, self._server_port)
        except OSError:
            return None
        connection = Connection(self, near, far)
        if self._black_hole:
            connection.silence()
        self._open.add(connection)
        return connection

    def ended(self, connection: "Connection") -> None:
        """Forgets a connection that has ended."""
        self._open.discard(connection)


class Watch:
    """Waits for a moment on the connections of a proxy."""

    def __init__(
        self, moment: Moment, then: "Callable[[Connection], None]", *, nth: int = 1, of: str = ""
    ) -> None:
        self.moment = moment
        self.count = 0
        """The number of times that the moment has come."""
        self.struck: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        """Done after `then` was called: the connection."""
        self._then = then
        self._nth = nth
        self._of = of
        self._requests: set[tuple[int, object]] = set()

    def matches(self, connection: "Connection", parsed: Parsed) -> bool:
        """Counts the moment if it has come; returns whether to act."""
        if self.struck.done() or self._of not in connection.name:
            return False
        request = (id(connection), parsed.key)
        if parsed.step is self.moment.after:
            self._requests.add(request)
        if parsed.step is not self.moment.step or (self.moment.after and request not in self._requests):
            return False
        self._requests.discard(request)
        self.count += 1
        return self.count == self._nth

    def strike(self, connection: "Connection") -> None:
        """Calls `then`."""
        self._then(connection)
        self.struck.set_result(connection)


class Connection:
    """One connection: its two sides, and the forwarding between them."""

    def __init__(self, proxy: Proxy, near: "_Near", far: "_Far") -> None:
        self.silent = False
        self._is_reset = False
        self._proxy = proxy
        self._near, self._far = near, far
        self._parser: Parser | None = None
        self._started = False
        self._lanes: dict[_Side, Lane] = {
            near: Lane(lambda: proxy.to_server, far.write, far.close),
            far: Lane(lambda: proxy.to_client, near.write, near.close),
        }
        self._ended = 0
        """The number of its sides that have ended."""
        near.join(self)
        far.join(self)

    @property
    def name(self) -> str:
        """The client's name, if its protocol has one and it has sent it."""
        return self._parser.name if self._parser else ""

    @property
    def _passes(self) -> bool:
        """Whether it forwards bytes."""
        return not self.silent and not self._is_reset

    @property
    def process(self) -> int | None:
        """The id of the client's process on this machine."""
        return peers.process_at(self._near.transport.get_extra_info("peername")[1])

    def reset(self) -> None:
        """Resets both sides, as a crash does."""
        self._is_reset = True
        self._proxy.ended(self)
        for side, lane in self._lanes.items():
            lane.drop()
            side.reset()

    def silence(self) -> None:
        """Stops forwarding; neither side notices."""
        self.silent = True
        for lane in self._lanes.values():
            lane.drop()

    def leave_half_open(self) -> None:
        """Resets the server's side; the client does not notice."""
        self.silence()
        self._far.reset()

    # Called by its sides

    def received(self, side: "_Side", data: bytes) -> None:
        """Forwards bytes from one side."""
        if not self._passes:
            return
        lane = self._lanes[side]
        forwarded = 0
        for parsed in self._parse(side, data):
            for watch in [watch for watch in self._proxy.watching if watch.matches(self, parsed)]:
                until = parsed.end if watch.moment.halfway else parsed.begin
                lane.push(data[forwarded:until])
                forwarded = until
                watch.strike(self)
                if self._is_stopped():
                    return
        self._proxy.delayed += not lane.push(data[forwarded:] if forwarded else data)
        if lane.is_full:
            side.pause(paused=True)

    def _is_stopped(self) -> bool:
        """Whether a strike has stopped the forwarding."""
        return not self._passes

    def ended(self, side: "_Side") -> None:
        """One side has ended."""
        self._ended += 1
        if self._ended == 2:
            self._proxy.ended(self)
        elif self._passes:
            self._lanes[side].end()

    def pause(self, side: "_Side", *, paused: bool) -> None:
        """One side can't be written to for now, or can be again."""
        (self._far if side is self._near else self._near).pause(paused=paused)

    def relieved(self, side: "_Side") -> None:
        """Bytes were written to one side."""
        other = self._far if side is self._near else self._near
        if other.paused and not self._lanes[other].is_full:
            other.pause(paused=False)

    def _parse(self, side: "_Side", data: bytes) -> list[Parsed]:
        by_client = side is self._near
        if not self._started:
            self._started = True
            self._parser = parser_for_client(data) if by_client else parser_for_server(data)
        if self._parser is None:
            return []
        return self._parser.client(data) if by_client else self._parser.server(data)


class _Side(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, proxy: Proxy) -> None:
        self.paused = False
        self._proxy = proxy
        self._connection: Connection | None = None
        self._early = b""
        """Bytes received before the other side was connected."""
        self._congested = self._lost = False

    def join(self, connection: Connection) -> None:
        self._connection = connection
        early, self._early = self._early, b""
        if early:
            connection.received(self, early)
        if self._lost:
            connection.ended(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's type is not a Transport
        self._proxy.sides += 1

    def data_received(self, data: bytes) -> None:
        if self._connection:
            self._connection.received(self, data)
        else:
            self._early += data

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        self._proxy.sides -= 1
        if self._connection:
            self._connection.ended(self)

    def pause_writing(self) -> None:
        self._congested = True
        if self._connection:
            self._connection.pause(self, paused=True)

    def resume_writing(self) -> None:
        self._congested = False
        if self._connection:
            self._connection.pause(self, paused=False)

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)
            if self._connection and not self._congested:
                self._connection.relieved(self)

    def pause(self, *, paused: bool) -> None:
        self.paused = paused
        with suppress(RuntimeError):  # it is closing
            (self.transport.pause_reading if paused else self.transport.resume_reading)()

    def close(self) -> None:
        """Closes it after everything is written."""
        self.transport.close()

    def reset(self) -> None:
        """Closes it at once, with RST instead of FIN."""
        own: socket.socket | None = self.transport.get_extra_info("socket")
        with suppress(OSError, ValueError):  # closed already: asyncio raises one, uvloop the other
            if own is not None and own.family in (socket.AF_INET, socket.AF_INET6):
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class _Far(_Side):
    """The server's side."""


class _Near(_Side):
    """The client's side."""

    _connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        connection = await self._proxy.connect(self)
        if connection is None:
            self.reset()


_ADDRESS = frozenset({"host", "port"})
"""The parts of a URL's query that name the server."""


@asynccontextmanager
async def proxy_to(server: int | str) -> AsyncIterator[Proxy]:
    """A proxy to a server, given by URL or local port."""
    proxy = Proxy(server)
    await proxy.accept()
    try:
        yield proxy
    finally:
        await proxy.refuse()
        while proxy.sides:
            proxy.cut()
            await asyncio.sleep(0.001)
