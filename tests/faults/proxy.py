"""A TCP proxy that breaks, also at moments of the protocol: the work is done, and its answer never comes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import urlsplit, urlunsplit


@dataclass(frozen=True)
class Moment:
    """A request and its answer, as bytes that are found in them."""

    name: str
    request: bytes
    answer: bytes


COMMIT: Final = Moment("COMMIT", b"Q\x00\x00\x00\x0bCOMMIT\x00", b"C\x00\x00\x00\x0bCOMMIT\x00")
"""PostgreSQL's simple query, and CommandComplete: https://www.postgresql.org/docs/current/protocol-message-formats.html"""
PUBLISH: Final = Moment("publish", b"\x00\x3c\x00\x28", b"\x00\x3c\x00\x50")
"""AMQP 0-9-1's Basic.Publish, and Basic.Ack, which is the broker's confirm."""
MAIL: Final = Moment("mail", b"\r\n.\r\n", b"250 ")
"""SMTP's final dot, and that the mail was taken."""
PAYMENT: Final = Moment("payment", b"POST /v1/", b"HTTP/1.1 200")
"""A request that changes something at Stripe, and its answer."""


class Proxy:
    """Forwards to one server of this machine, until told otherwise."""

    def __init__(self, server: int) -> None:
        self.port = 0
        """Where it listens; kept."""
        self._server = server
        self._listener: asyncio.Server | None = None
        self._beginning = asyncio.Lock()
        self._pairs: set[_Pair] = set()
        self._losing: tuple[Moment, asyncio.Future[None]] | None = None

    @property
    def connections(self) -> int:
        """How many connections go through it now."""
        return sum(not pair.silent for pair in self._pairs)

    def through(self, url: str) -> str:
        """The URL of the same server by way of this proxy."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self.port}"))

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
        pairs = list(self._pairs)
        for pair in pairs:
            pair.reset()
        return len(pairs)

    def silence(self) -> int:
        """Nothing goes through the connections there are any more; no side is told that the other ended."""
        pairs = [pair for pair in self._pairs if not pair.silent]
        for pair in pairs:
            pair.silent = True
        return len(pairs)

    def forget_silent(self) -> None:
        """Resets what was silenced."""
        for pair in [pair for pair in self._pairs if pair.silent]:
            pair.reset()

    async def lose_answer(self, moment: Moment) -> None:
        """Waits until the next such request is answered: that answer is lost, its connection is reset."""
        lost = asyncio.get_running_loop().create_future()
        self._losing = (moment, lost)
        try:
            await lost
        finally:
            self._losing = None

    # What the connections ask

    async def connect(self, near: "_Near") -> "_Pair | None":
        """The far side of a new connection; None when the server does not answer."""
        loop = asyncio.get_running_loop()
        try:
            _, far = await loop.create_connection(_Far, "127.0.0.1", self._server)
        except OSError:
            return None
        pair = _Pair(self, near, far)
        self._pairs.add(pair)
        return pair

    def ended(self, pair: "_Pair") -> None:
        """A connection is no more."""
        self._pairs.discard(pair)

    def begins_to_lose(self, data: bytes) -> tuple[Moment, "asyncio.Future[None]"] | None:
        """The moment that is waited for, if this is its request; nobody else gets it then."""
        if self._losing and self._losing[0].request in data:
            losing, self._losing = self._losing, None
            return losing
        return None


class _Pair:
    """One connection: its two sides, and what becomes of what they say."""

    def __init__(self, proxy: Proxy, near: "_Near", far: "_Far") -> None:
        self.silent = False
        self._proxy = proxy
        self._near, self._far = near, far
        self._losing: tuple[Moment, asyncio.Future[None]] | None = None
        near.join(self)
        far.join(self)

    def said(self, side: "_Side", data: bytes) -> None:
        if self.silent:
            return
        if side is self._near:
            self._losing = self._losing or self._proxy.begins_to_lose(data)
            self._far.write(data)
        elif self._losing is None:
            self._near.write(data)
        elif self._losing[0].answer in data:
            _, lost = self._losing
            self.reset()
            if not lost.done():
                lost.set_result(None)

    def ended(self, side: "_Side") -> None:
        if not self.silent:
            self.reset()

    def throttle(self, side: "_Side", *, pause: bool) -> None:
        other = self._far if side is self._near else self._near
        with suppress(RuntimeError):
            (other.transport.pause_reading if pause else other.transport.resume_reading)()

    def reset(self) -> None:
        self._proxy.ended(self)
        self._near.transport.abort()
        self._far.transport.abort()


class _Side(asyncio.Protocol):
    transport: asyncio.Transport
    pair: _Pair | None = None

    def __init__(self) -> None:
        self._early = b""
        """What it said before it was connected to the other."""

    def join(self, pair: _Pair) -> None:
        self.pair = pair
        early, self._early = self._early, b""
        if early:
            pair.said(self, early)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type

    def data_received(self, data: bytes) -> None:
        if self.pair:
            self.pair.said(self, data)
        else:
            self._early += data

    def connection_lost(self, error: Exception | None) -> None:
        if self.pair:
            self.pair.ended(self)

    def pause_writing(self) -> None:
        if self.pair:
            self.pair.throttle(self, pause=True)

    def resume_writing(self) -> None:
        if self.pair:
            self.pair.throttle(self, pause=False)

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)


class _Far(_Side):
    """The side of the server."""


class _Near(_Side):
    """The side of the client."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self._proxy = proxy
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        pair = await self._proxy.connect(self)
        if pair is None:
            self.transport.abort()
        elif self.transport.is_closing():
            pair.reset()


@asynccontextmanager
async def proxy_to(server: int) -> AsyncIterator[Proxy]:
    """A proxy to the server on a port of this machine."""
    proxy = Proxy(server)
    await proxy.accept()
    try:
        yield proxy
    finally:
        await proxy.refuse()
