"""An HTTP client for load: just enough HTTP/1.1, so that it costs little CPU."""

import asyncio
from dataclasses import dataclass
from typing import Final

ANSWER_SECONDS: Final = 8.0


class NoAnswer(Exception):
    """The connection failed, or no answer came in time."""


@dataclass
class Client:
    """One keep-alive connection, opened again after it fails."""

    port: int
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: bytes, key: str) -> tuple[int, bytes]:
        """Returns the status and body of the answer. Raises NoAnswer."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
            f"Idempotency-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._ask(head.encode() + body)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.close()
            raise NoAnswer(type(error).__name__) from error
        except BaseException:
            self.close()
            raise

    async def get(self, path: str) -> tuple[int, bytes]:
        """Returns the status and body of the answer. Raises NoAnswer."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._ask(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode())
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.close()
            raise NoAnswer(type(error).__name__) from error

    def close(self) -> None:
        """Closes the connection."""
        if self._writer:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def _ask(self, request: bytes) -> tuple[int, bytes]:
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return int(status_line.split()[1]), body
