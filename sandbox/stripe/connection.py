"""One request's connection: how its answer gets out, or doesn't."""

import asyncio
import json
import socket
import struct
from typing import Any, Final

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTION: Final = "stripe.connection"
"""Where the scope holds the transport: ASGI itself can't reset a connection."""
DRIPS: Final = 20
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: closing sends RST."""


class ResettableProtocol(HttpToolsProtocol):
    """HTTP as uvicorn speaks it, and the transport in each request's scope."""

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: {"transport": self.transport}}


class Connection:
    """A request to read once, and to answer once, well or badly."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])

    async def body(self) -> bytes:
        """The request's whole body."""
        body, more = b"", True
        while more:
            message = await self._receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return body

    async def answer(
        self,
        status: int,
        body: bytes,
        headers: dict[bytes, bytes] | None = None,
        content: bytes = b"application/json",
    ) -> None:
        """The whole answer, at once."""
        await self._begin(status, body, headers, content)
        await self._send({"type": "http.response.body", "body": body})

    async def say(self, status: int, value: Any) -> None:
        """The whole answer, as JSON."""
        await self.answer(status, json.dumps(value).encode())

    async def drip(self, status: int, body: bytes, headers: dict[bytes, bytes], seconds: float) -> None:
        """The answer, a few bytes at a time, until the client has it or gives up."""
        await self._begin(status, body, headers)
        size = max(1, len(body) // DRIPS)
        gone = asyncio.ensure_future(self._gone())
        try:
            for start in range(0, len(body), size):
                if start and (await asyncio.wait([gone], timeout=seconds / DRIPS))[0]:
                    return
                part = body[start : start + size]
                await self._send({"type": "http.response.body", "body": part, "more_body": True})
            await self._send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()

    async def cut(self, status: int, body: bytes, headers: dict[bytes, bytes]) -> None:
        """The answer's first half, and then the connection is reset."""
        await self._begin(status, body, headers)
        half = {"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True}
        await self._send(half)
        await self.reset()

    async def hang(self, seconds: float) -> None:
        """No answer, until the client gives up or the time is over; then the connection is reset."""
        try:
            async with asyncio.timeout(seconds):
                await self._gone()
        except TimeoutError:
            await self.reset()

    async def reset(self) -> None:
        """Resets the connection; whatever was not sent yet never is."""
        transport = self._scope["extensions"][CONNECTION]["transport"]
        stream = transport.get_extra_info("socket")
        if not transport.is_closing():
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
        await self._gone()

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _begin(
        self,
        status: int,
        body: bytes,
        headers: dict[bytes, bytes] | None,
        content: bytes = b"application/json",
    ) -> None:
        length = str(len(body)).encode()
        sent = [(b"content-type", content), (b"content-length", length), *(headers or {}).items()]
        await self._send({"type": "http.response.start", "status": status, "headers": sent})
