"""One request's connection, on which the answer is sent whole, slowly, in part or not at all."""

import asyncio
import json
import socket
import struct
from typing import Any, Final

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTION: Final = "stripe.connection"
"""The scope's extension that holds the transport. ASGI itself can't reset a connection."""
DRIPS: Final = 20
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with a timeout of 0: closing the socket sends RST."""


class ResettableProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with the transport in each request's scope."""

    def on_message_begin(self) -> None:
        """Puts the transport into the new request's scope."""
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: {"transport": self.transport}}


class Connection:
    """One request, to be read once and answered once."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])

    async def body(self) -> bytes:
        """Reads the request's whole body."""
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
        """Sends the whole answer."""
        await self._start(status, body, headers, content)
        await self._send({"type": "http.response.body", "body": body})

    async def answer_json(self, status: int, value: Any) -> None:
        """Sends the value as JSON."""
        await self.answer(status, json.dumps(value).encode())

    async def drip(self, status: int, body: bytes, headers: dict[bytes, bytes], seconds: float) -> None:
        """Sends the answer a few bytes at a time, until the client has it or disconnects."""
        await self._start(status, body, headers)
        size = max(1, len(body) // DRIPS)
        disconnected = asyncio.ensure_future(self._disconnected())
        try:
            for start in range(0, len(body), size):
                if start and (await asyncio.wait([disconnected], timeout=seconds / DRIPS))[0]:
                    return
                part = body[start : start + size]
                await self._send({"type": "http.response.body", "body": part, "more_body": True})
            await self._send({"type": "http.response.body", "body": b""})
        finally:
            disconnected.cancel()

    async def cut(self, status: int, body: bytes, headers: dict[bytes, bytes]) -> None:
        """Sends the first half of the answer, then resets the connection."""
        await self._start(status, body, headers)
        half = {"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True}
        await self._send(half)
        await self.reset()

    async def hang(self, seconds: float) -> None:
        """Sends nothing. Resets the connection after this time unless the client disconnects before."""
        try:
            async with asyncio.timeout(seconds):
                await self._disconnected()
        except TimeoutError:
            await self.reset()

    async def reset(self) -> None:
        """Resets the connection. Bytes that are still buffered are dropped."""
        transport = self._scope["extensions"][CONNECTION]["transport"]
        stream = transport.get_extra_info("socket")
        if not transport.is_closing():
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
        await self._disconnected()

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _start(
        self,
        status: int,
        body: bytes,
        headers: dict[bytes, bytes] | None,
        content: bytes = b"application/json",
    ) -> None:
        length = str(len(body)).encode()
        sent = [(b"content-type", content), (b"content-length", length), *(headers or {}).items()]
        await self._send({"type": "http.response.start", "status": status, "headers": sent})
