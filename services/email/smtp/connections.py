"""Connections to one mail server, ready for a mail and kept between mails."""

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from aiosmtplib import SMTP, SMTPException, SMTPHeloError, SMTPResponseException

from services.email.mailer import MailServerUnavailable
from services.email.smtp.answers import one_line
from services.email.smtp.server import Server, Timeouts

IDLE_SECONDS: Final = 20.0
"""A connection that is idle for longer is closed."""
ASK_AGAIN_SECONDS: Final = 5.0
"""The longest wait for a connection of ours to become free before the server is asked for another one."""


class _ServerFull(MailServerUnavailable):
    """The mail server takes no further connection now."""


@dataclass(frozen=True, slots=True)
class _Idle:
    client: SMTP
    since: float
    clean: bool
    """Whether it is ready for a mail. Otherwise it is reset before its next use."""


class Connections:
    """Opens connections when needed, so that there are as many as mails were in flight at a time.

    A server that takes no further connection while others are in use is not unavailable: the caller waits for
    one of those.
    """

    def __init__(self, server: Server, domain: str, timeouts: Timeouts) -> None:
        self._server = server
        self._domain = domain
        self._timeouts = timeouts
        self._tls = ssl.create_default_context() if server.tls or server.starttls else None
        self._idle: list[_Idle] = []
        """In the order of their last use."""
        self._in_use = 0
        self._freed = asyncio.Event()
        self._queue = asyncio.Lock()

    async def open_or_wait(self) -> SMTP:
        """A new connection, or the next that becomes free if the server takes no further one.

        Raises MailServerUnavailable.
        """
        while True:
            try:
                with self.in_use():
                    return await self._open()
            except _ServerFull:
                if not (self._in_use or self._idle):
                    raise
            async with self._queue:  # one caller at a time asks again, in the order of their calls
                await self._wait_until_one_is_free()
                idle = await self.take_idle()
            if idle:
                return idle

    async def _wait_until_one_is_free(self) -> None:
        """Returns when a connection is free, or after ASK_AGAIN_SECONDS."""
        if self._in_use and not self._idle:
            self._freed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_AGAIN_SECONDS):
                    await self._freed.wait()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Counts a connection as in use while it is opened or has a mail, and tells when it is free."""
        self._in_use += 1
        try:
            yield
        finally:
            self._in_use -= 1
            self._freed.set()

    async def _open(self) -> SMTP:
        """A new connection, ready for a mail. Raises MailServerUnavailable."""
        client = None
        try:
            client = self._client(await self._dial())
            async with asyncio.timeout(self._timeouts.opening):
                await client.connect()
                await _introduce(client)
        except (SMTPException, OSError, UnicodeError) as error:
            if client:
                client.close()
            raise _unavailable(error) from error
        except BaseException:
            if client:
                client.close()
            raise
        return client

    def _client(self, connected: socket.socket) -> SMTP:
        return SMTP(
            hostname=self._server.host,
            sock=connected,
            username=self._server.username,
            password=self._server.password,
            use_tls=self._server.tls,
            start_tls=self._server.starttls,
            tls_context=self._tls,
            local_hostname=self._domain,
            timeout=self._timeouts.opening,
        )

    async def _dial(self) -> socket.socket:
        """A TCP connection to the first of the server's addresses that answers. Raises OSError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._timeouts.connect):
            found = await loop.getaddrinfo(self._server.host, self._server.port, type=socket.SOCK_STREAM)
        error: OSError | None = None
        for family, kind, protocol, _, address in found:
            connection = socket.socket(family, kind, protocol)
            try:
                connection.setblocking(False)
                async with asyncio.timeout(self._timeouts.connect):
                    await loop.sock_connect(connection, address)
            except OSError as failure:
                connection.close()
                error = failure
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise error or OSError("The mail server's name has no address.")

    async def take_idle(self) -> SMTP | None:
        """The idle connection that was used last, reset for a mail; None if none works any more."""
        self._close_old()
        while self._idle:
            idle = self._idle.pop()
            client = idle.client
            try:
                if client.is_connected and not idle.clean:
                    await client.rset(timeout=self._timeouts.reset)
            except SMTPException:
                client.close()
            except BaseException:
                client.close()
                raise
            if client.is_connected:
                return client
        return None

    def keep(self, client: SMTP, *, clean: bool) -> None:
        """Keeps the connection for the next mail. If it is not `clean`, it is reset first."""
        self._close_old()
        if client.is_connected:
            self._idle.append(_Idle(client, time.monotonic(), clean))

    def _close_old(self) -> None:
        while self._idle and time.monotonic() - self._idle[0].since > IDLE_SECONDS:
            _quit(self._idle.pop(0).client)

    async def close(self) -> None:
        """Closes all idle connections."""
        while self._idle:
            _quit(self._idle.pop().client)
        await asyncio.sleep(0)  # transports close in the loop's next turn


def _unavailable(error: Exception) -> MailServerUnavailable:
    """The error for a connection that could not be opened."""
    if isinstance(error, SMTPResponseException):
        message = f"The mail server can't be used: {one_line(error.code, error.message)}"
        return _ServerFull(message) if 400 <= error.code < 500 else MailServerUnavailable(message)
    return MailServerUnavailable(f"The mail server can't be used: {str(error) or 'no answer in time'}")


async def _introduce(client: SMTP) -> None:
    """Says EHLO unless AUTH or STARTTLS have; HELO to a server that knows no EHLO (RFC 5321, 3.2)."""
    if client.is_ehlo_or_helo_needed:
        try:
            await client.ehlo()
        except SMTPHeloError as error:
            if not (client.is_connected and 500 <= error.code < 600):
                raise
            await client.helo()


def _quit(client: SMTP) -> None:
    """Ends a connection with QUIT (RFC 5321, 4.1.1.10), without waiting for the answer."""
    with suppress(SMTPException):
        if client.protocol is not None:
            client.protocol.write(b"QUIT\r\n")
    client.close()
