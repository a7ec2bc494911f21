"""A TCP proxy that breaks: what clients see of a failing server or network, without touching either.

It cuts, refuses, goes silent, or slows down; and it strikes at moments of the protocol, where the work is
done and its answer never comes. It understands PostgreSQL, AMQP, SMTP and HTTP, and forwards the rest too.
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
from tests.faults.talks import Said, Talk, talk_begun_by_client, talk_begun_by_server


class Proxy:
    """Forwards to one server, until told otherwise."""

    def __init__(self, server: int | str) -> None:
        """The server is named by its URL, or by its port of this machine."""
        parts = urlsplit(server if isinstance(server, str) else f"tcp://127.0.0.1:{server}")
        query = dict(parse_qsl(parts.query))
        self._host = query.get("host", parts.hostname or "127.0.0.1")
        """A name or an address; for PostgreSQL also the folder of its unix socket."""
        self._server_port = int(query.get("port", parts.port or 5432))
        self.port = 0
        """Where it listens; kept."""
        self.to_server = self.to_client = AT_ONCE
        """Its paces; setting one changes it for every connection."""
        self.held_up = 0
        """How often bytes were slowed down."""
        self.sides = 0
        """How many sides of connections are open."""
        self.watching: list[Watch] = []
        self._black_hole = False
        self._listener: asyncio.Server | None = None
        self._beginning = asyncio.Lock()
        self._open: set[Connection] = set()

    @property
    def connections(self) -> int:
        """How many connections go through it now."""
        return sum(not connection.silent for connection in self._open)

    @property
    def silenced(self) -> int:
        """How many connections are silent."""
        return len(self._open) - self.connections

    def through(self, url: str) -> str:
        """The URL of the same server by way of this proxy."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name not in _PLACE])
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self.port}", query=query))

    async def accept(self) -> None:
        """Listens, from the second time on at the same port; nothing changes while it does."""
        async with self._beginning:
            if self._listener is None:
                loop = asyncio.get_running_loop()
                self._listener = await loop.create_server(lambda: _Near(self), "127.0.0.1", self.port)
                self.port = self._listener.sockets[0].getsockname()[1]

    async def refuse(self) -> int:
        """Resets every connection and refuses new ones; returns how many were reset."""
        if self._listener:
            self._listener.close()
            self._listener = None
        return self.cut()

    def cut(self) -> int:
        """Resets every connection; returns how many."""
        connections = list(self._open)
        for connection in connections:
            connection.reset()
        return len(connections)

    def silence(self, *, also_new: bool = False) -> int:
        """Nothing goes through the connections there are any more; no side is told that the other ended.

        With `also_new` the same is true of those made from now on, until `forget_silent`: a black hole.
        """
        self._black_hole = also_new
        connections = [connection for connection in self._open if not connection.silent]
        for connection in connections:
            connection.silence()
        return len(connections)

    def forget_silent(self) -> None:
        """Resets what was silenced; new connections work."""
        self._black_hole = False
        for connection in [connection for connection in self._open if connection.silent]:
            connection.reset()

    def half_open(self) -> int:
        """The server loses every connection, and no client is told; returns how many."""
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
        """Does `then` to the connection where the moment comes, the nth time that it does; else nothing.

        By default it is reset. When `then` leaves it alone, what was on its way is forwarded after it.
        `of` is what the client calls itself, or a part of that: its PostgreSQL role, the name of its AMQP
        connection.
        """
        watch = Watch(moment, then or Connection.reset, nth=nth, of=of)
        self.watching.append(watch)
        try:
            yield watch
        finally:
            if watch in self.watching:
                self.watching.remove(watch)

    async def cut_at(self, moment: Moment) -> None:
        """Waits until the moment comes, on any connection, and resets that connection."""
        with self.at(moment) as watch:
            await watch.struck

    # What the connections ask

    async def connect(self, near: "_Near") -> "Connection | None":
        """The far side of a new connection; None when the server does not answer."""
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
        """A connection is no more."""
        self._open.discard(connection)


class Watch:
    """Waits for a moment on the connections of a proxy."""

    def __init__(
        self, moment: Moment, then: "Callable[[Connection], None]", *, nth: int = 1, of: str = ""
    ) -> None:
        self.moment = moment
        self.count = 0
        """How often the moment has come."""
        self.struck: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        """Done when it was acted on: the connection to which that was done."""
        self._then = then
        self._nth = nth
        self._of = of
        self._asked: set[tuple[int, object]] = set()

    def sees(self, connection: "Connection", said: Said) -> bool:
        """Whether this is the moment to act."""
        if self.struck.done() or self._of not in connection.name:
            return False
        asked = (id(connection), said.key)
        if said.what is self.moment.after:
            self._asked.add(asked)
        if said.what is not self.moment.what or (self.moment.after and asked not in self._asked):
            return False
        self._asked.discard(asked)
        self.count += 1
        return self.count == self._nth

    def strike(self, connection: "Connection") -> None:
        """Acts."""
        self._then(connection)
        self.struck.set_result(connection)


class Connection:
    """One connection: its two sides, and what becomes of what they say."""

    def __init__(self, proxy: Proxy, near: "_Near", far: "_Far") -> None:
        self.silent = False
        self._is_reset = False
        self._proxy = proxy
        self._near, self._far = near, far
        self._talk: Talk | None = None
        self._begun = False
        self._lanes: dict[_Side, Lane] = {
            near: Lane(lambda: proxy.to_server, far.write, far.close),
            far: Lane(lambda: proxy.to_client, near.write, near.close),
        }
        self._ended = 0
        """How many of its sides have."""
        near.join(self)
        far.join(self)

    @property
    def name(self) -> str:
        """What the client calls itself, once it has said so, where its protocol has such a thing."""
        return self._talk.name if self._talk else ""

    @property
    def _passes(self) -> bool:
        """Whether anything goes through it."""
        return not self.silent and not self._is_reset

    @property
    def process(self) -> int | None:
        """Id of the process that is the client, on this machine."""
        return peers.process_at(self._near.transport.get_extra_info("peername")[1])

    def reset(self) -> None:
        """Ends it as a crash does: both sides see a reset."""
        self._is_reset = True
        self._proxy.ended(self)
        for side, lane in self._lanes.items():
            lane.drop()
            side.reset()

    def silence(self) -> None:
        """Nothing goes through it any more, and nobody is told."""
        self.silent = True
        for lane in self._lanes.values():
            lane.drop()

    def leave_half_open(self) -> None:
        """The server loses it, the client is not told."""
        self.silence()
        self._far.reset()

    # What its sides have to say

    def said(self, side: "_Side", data: bytes) -> None:
        """One side has said something."""
        if not self._passes:
            return
        lane = self._lanes[side]
        forwarded = 0
        for said in self._follow(side, data):
            for watch in [watch for watch in self._proxy.watching if watch.sees(self, said)]:
                until = said.end if watch.moment.halfway else said.begin
                lane.push(data[forwarded:until])
                forwarded = until
                watch.strike(self)
                if self._is_stopped():
                    return
        self._proxy.held_up += not lane.push(data[forwarded:] if forwarded else data)
        if lane.is_full:
            side.pause(paused=True)

    def _is_stopped(self) -> bool:
        """Whether a strike has ended what was going on."""
        return not self._passes

    def ended(self, side: "_Side") -> None:
        """One side is gone."""
        self._ended += 1
        if self._ended == 2:
            self._proxy.ended(self)
        elif self._passes:
            self._lanes[side].end()

    def pause(self, side: "_Side", *, paused: bool) -> None:
        """One side takes no more for now, or again."""
        (self._far if side is self._near else self._near).pause(paused=paused)

    def relieved(self, side: "_Side") -> None:
        """Something was written to one side."""
        other = self._far if side is self._near else self._near
        if other.paused and not self._lanes[other].is_full:
            other.pause(paused=False)

    def _follow(self, side: "_Side", data: bytes) -> list[Said]:
        by_client = side is self._near
        if not self._begun:
            self._begun = True
            self._talk = talk_begun_by_client(data) if by_client else talk_begun_by_server(data)
        if self._talk is None:
            return []
        return self._talk.client(data) if by_client else self._talk.server(data)


class _Side(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, proxy: Proxy) -> None:
        self.paused = False
        self._proxy = proxy
        self._connection: Connection | None = None
        self._early = b""
        """What it said before it was connected to the other."""
        self._congested = self._lost = False

    def join(self, connection: Connection) -> None:
        self._connection = connection
        early, self._early = self._early, b""
        if early:
            connection.said(self, early)
        if self._lost:
            connection.ended(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type
        self._proxy.sides += 1

    def data_received(self, data: bytes) -> None:
        if self._connection:
            self._connection.said(self, data)
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
        """Ends it once everything is written."""
        self.transport.close()

    def reset(self) -> None:
        """Ends it as it stands, with RST in place of FIN."""
        own: socket.socket | None = self.transport.get_extra_info("socket")
        with suppress(OSError, ValueError):  # it is closed already: asyncio says the one, uvloop the other
            if own is not None and own.family in (socket.AF_INET, socket.AF_INET6):
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class _Far(_Side):
    """The side of the server."""


class _Near(_Side):
    """The side of the client."""

    _connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        connection = await self._proxy.connect(self)
        if connection is None:
            self.reset()


_PLACE = frozenset({"host", "port"})
"""Where a URL's query may say which server it means."""


@asynccontextmanager
async def proxy_to(server: int | str) -> AsyncIterator[Proxy]:
    """A proxy to a server, by its URL or by its port of this machine."""
    proxy = Proxy(server)
    await proxy.accept()
    try:
        yield proxy
    finally:
        await proxy.refuse()
        while proxy.sides:
            proxy.cut()
            await asyncio.sleep(0.001)
