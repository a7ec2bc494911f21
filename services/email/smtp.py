"""Mails by SMTP (RFC 5321), over connections that are kept: opening one costs more than sending a mail."""

import asyncio
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from aiosmtplib import (
    SMTP,
    SMTPException,
    SMTPHeloError,
    SMTPResponse,
    SMTPResponseException,
    SMTPStatus,
    SMTPTimeoutError,
)

from services.email.domain import Outcome
from services.email.mailer import Letter, MailPerhapsSent, MailPostponed, MailServerUnavailable

IDLE_SECONDS: Final = 20.0
"""A connection that is idle for longer is closed."""
ASK_AGAIN_SECONDS: Final = 5.0
"""The longest wait for a connection of ours to become free before the server is asked for another one."""

_PERHAPS_ALL: Final = frozenset({421, 503, 530, 534, 535, 538})
"""Answers about the server or about us that servers also give to RCPT.

421: the server ends the connection. 503: commands out of order; some servers say so when they want AUTH
first. 530, 534, 535, 538: authentication required or refused (RFC 4954, 6; 538: RFC 2554, 6).
"""
_TOO_LARGE: Final = 552


@dataclass(frozen=True, slots=True)
class Times:
    """The longest waits for a mail server, in seconds: the least that RFC 5321, 4.5.3.2 allows."""

    connect: float = 30.0
    """For each of the server's addresses. The RFC says nothing of it."""
    opening: float = 300.0
    """For the greeting (4.5.3.2.1), EHLO, STARTTLS and AUTH together."""
    mail: float = 300.0
    """4.5.3.2.2"""
    rcpt: float = 300.0
    """4.5.3.2.3"""
    data: float = 120.0
    """For the answer to DATA (4.5.3.2.4)."""
    content: float = 780.0
    """For the mail as one block (4.5.3.2.5: 3 minutes) and the answer to its final dot (4.5.3.2.6: 10)."""
    reset: float = 10.0
    """For the answer to RSET. Without one the connection is closed, and no mail fails."""


RFC_5321: Final = Times()


class InvalidServer(ValueError):
    """A mail server is smtp[s]://[user:password@]host[:port], and smtp may have ?starttls."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where mails are handed over, and as whom."""

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    """The connection is TLS from its beginning."""
    starttls: bool = False
    """The connection becomes TLS before anything is said, or is not used."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Reads `smtp[s]://[user:password@]host[:port][?starttls]`. Raises InvalidServer, without the URL."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise InvalidServer(InvalidServer.__doc__) from None
        options = parse_qsl(parts.query, keep_blank_values=True)
        tls, starttls = parts.scheme == "smtps", options == [("starttls", "")]
        if (
            parts.scheme not in ("smtp", "smtps")
            or not parts.hostname
            or parts.path not in ("", "/")
            or (options and not starttls)
            or (tls and starttls)
            or (parts.username is None) != (parts.password is None)
        ):
            raise InvalidServer(InvalidServer.__doc__)
        return cls(
            host=parts.hostname,
            port=port or (465 if tls else 587 if starttls else 25),
            username=None if parts.username is None else unquote(parts.username),
            password=None if parts.password is None else unquote(parts.password),
            tls=tls,
            starttls=starttls,
        )


class _Full(MailServerUnavailable):
    """The mail server takes no further connection now."""


class _Lost(Exception):
    """The connection ended before the mail was handed over."""


@dataclass(frozen=True, slots=True)
class _Idle:
    client: SMTP
    since: float
    clean: bool
    """Whether it is ready for a mail. One in the middle of a mail is reset before its use."""


class SmtpMailer:
    """Hands mails to one mail server. There are as many connections as mails were in flight at a time.

    Where a refusal is said decides whom it concerns. Before a mail (connecting, greeting, EHLO, STARTTLS,
    AUTH) the server speaks of itself: an outage. In a mail's conversation it speaks of that mail, which is
    refused or postponed. Some of these answers may concern every mail: the error says so (`perhaps_all`),
    and several different mails have to meet one before it counts as an outage.

    A server that takes no further connection while others are in use is not away: the mail waits for one of
    those.
    """

    def __init__(self, server: Server, domain: str, times: Times) -> None:
        self._server = server
        self._domain = domain
        self._times = times
        self._tls = ssl.create_default_context() if server.tls or server.starttls else None
        self._idle: list[_Idle] = []
        """The one that was used last is the last."""
        self._in_use = 0
        self._freed = asyncio.Event()
        self._queue = asyncio.Lock()

    async def send(self, letter: Letter) -> Outcome:
        """See Mailer."""
        kept = await self._take_idle()
        if kept:
            with suppress(_Lost):  # it ended while idle: once more over a new one
                return await self._send_over(kept, letter)
        try:
            return await self._send_over(await self._connect_or_wait(), letter)
        except _Lost as error:
            raise MailPostponed(
                f"The mail server ended the conversation about this mail: {error}", perhaps_all=True
            ) from error

    async def close(self) -> None:
        """Says goodbye to the server."""
        while self._idle:
            _say_goodbye(self._idle.pop().client)
        await asyncio.sleep(0)  # transports close in the loop's next turn

    # Connections

    async def _connect_or_wait(self) -> SMTP:
        """A new connection; one of ours that becomes free where the server takes no further one."""
        while True:
            try:
                with self._using():
                    return await self._connect()
            except _Full:
                if not (self._in_use or self._idle):
                    raise
            async with self._queue:  # one at a time asks again, first come, first served
                await self._wait_until_one_is_free()
                kept = await self._take_idle()
            if kept:
                return kept

    async def _wait_until_one_is_free(self) -> None:
        """Returns when a connection of ours is done with its mail, or when it is time to ask for another."""
        if self._in_use and not self._idle:
            self._freed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_AGAIN_SECONDS):
                    await self._freed.wait()

    @contextmanager
    def _using(self) -> Iterator[None]:
        """A connection is being made or used."""
        self._in_use += 1
        try:
            yield
        finally:
            self._in_use -= 1
            self._freed.set()

    async def _connect(self) -> SMTP:
        """A new connection, ready for a mail. Raises MailServerUnavailable."""
        client = None
        try:
            client = self._client(await self._dial())
            async with asyncio.timeout(self._times.opening):
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
            timeout=self._times.opening,
        )

    async def _dial(self) -> socket.socket:
        """A TCP connection to the first of the server's addresses that answers. Raises OSError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._times.connect):
            found = await loop.getaddrinfo(self._server.host, self._server.port, type=socket.SOCK_STREAM)
        error: OSError | None = None
        for family, kind, protocol, _, address in found:
            connection = socket.socket(family, kind, protocol)
            try:
                connection.setblocking(False)
                async with asyncio.timeout(self._times.connect):
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

    async def _take_idle(self) -> SMTP | None:
        """The connection that was used last, if it still works, ready for a mail."""
        self._close_old()
        while self._idle:
            idle = self._idle.pop()
            client = idle.client
            try:
                if client.is_connected and not idle.clean:
                    await client.rset(timeout=self._times.reset)
            except SMTPException:
                client.close()
            except BaseException:
                client.close()
                raise
            if client.is_connected:
                return client
        return None

    def _keep(self, client: SMTP, *, clean: bool) -> None:
        self._close_old()
        if client.is_connected:
            self._idle.append(_Idle(client, time.monotonic(), clean))

    def _close_old(self) -> None:
        while self._idle and time.monotonic() - self._idle[0].since > IDLE_SECONDS:
            _say_goodbye(self._idle.pop(0).client)

    # One mail

    async def _send_over(self, client: SMTP, letter: Letter) -> Outcome:
        try:
            with self._using():
                outcome = await self._hand_over(client, letter)
        except MailPostponed:
            self._keep(client, clean=False)
            raise
        except BaseException:  # where the conversation stands is not known
            client.close()
            raise
        self._keep(client, clean=outcome.state == "sent")
        return outcome

    async def _hand_over(self, client: SMTP, letter: Letter) -> Outcome:
        """The outcome. After MailPostponed and _Lost the server has not taken the mail; see Mailer."""
        options = b""
        if not letter.recipient.isascii():
            if not client.supports_extension("smtputf8"):
                return Outcome(
                    "refused", "The mail server takes no addresses outside of ASCII (no SMTPUTF8)."
                )
            options = b" BODY=8BITMIME SMTPUTF8"
        answer = await _ask(client, f"MAIL FROM:<{letter.sender}>".encode() + options, self._times.mail)
        if (
            answer.code == SMTPStatus.domain_unavailable
        ):  # also said to a connection that was idle for too long
            raise _Lost(_said(answer, letter))
        if not _is_ok(answer) and answer.code != _TOO_LARGE:  # the sender is the same for every mail
            raise MailPostponed(
                f"The mail server takes nothing from {letter.sender} now: {_said(answer, letter)}",
                perhaps_all=True,
            )
        if not _is_ok(answer):
            return _refused(answer, letter)
        answer = await _ask(client, f"RCPT TO:<{letter.recipient}>".encode(), self._times.rcpt)
        if not _is_ok(answer):
            return _refused(answer, letter)
        answer = await _ask(client, b"DATA", self._times.data)
        if answer.code != SMTPStatus.start_input:
            return _refused(answer, letter)
        answer = await _send_content(client, letter.content, self._times.content)
        if not _is_ok(answer):
            return _refused(answer, letter)
        return Outcome("sent", _said(answer, letter))


@asynccontextmanager
async def connect(server: Server, domain: str, times: Times = RFC_5321) -> AsyncIterator[SmtpMailer]:
    """A mailer that greets the server as `domain`, and ends its connections at the end."""
    mailer = SmtpMailer(server, domain, times)
    try:
        yield mailer
    finally:
        await mailer.close()


def _unavailable(error: Exception) -> MailServerUnavailable:
    """What it means that no connection could be made."""
    if isinstance(error, SMTPResponseException):
        what = f"The mail server can't be used: {_on_one_line(error.code, error.message)}"
        return _Full(what) if 400 <= error.code < 500 else MailServerUnavailable(what)
    return MailServerUnavailable(f"The mail server can't be used: {str(error) or 'no answer in time'}")


async def _introduce(client: SMTP) -> None:
    """Says EHLO, where AUTH or STARTTLS have not; HELO to a server that knows no EHLO (RFC 5321, 3.2)."""
    if client.is_ehlo_or_helo_needed:
        try:
            await client.ehlo()
        except SMTPHeloError as error:
            if not (client.is_connected and 500 <= error.code < 600):
                raise
            await client.helo()


def _say_goodbye(client: SMTP) -> None:
    """Ends a connection; the server is told (RFC 5321, 4.1.1.10), and its answer is not waited for."""
    with suppress(SMTPException):
        if client.protocol is not None:
            client.protocol.write(b"QUIT\r\n")
    client.close()


async def _ask(client: SMTP, command: bytes, seconds: float) -> SMTPResponse:
    """The answer to a command. Raises MailPostponed when none comes in time, _Lost when none can come."""
    try:
        return await client.execute_command(command, timeout=seconds)
    except SMTPTimeoutError as error:
        name = command[:4].decode()
        raise MailPostponed(
            f"The mail server did not answer {name} within {seconds:g} s.", perhaps_all=True
        ) from error
    except (SMTPException, OSError) as error:
        raise _Lost(str(error)) from error


async def _send_content(client: SMTP, content: bytes, seconds: float) -> SMTPResponse:
    """The answer to the mail itself, with its final dot.

    Raises _Lost when nothing could be sent, MailPerhapsSent when no answer came that says what became of it.
    """
    protocol = client.protocol
    dotted = content.replace(b"\r\n.", b"\r\n..")  # RFC 5321, 4.5.2; the first line is a header
    try:
        if protocol is None:
            raise _Lost("Connection lost")
        protocol.write(dotted + b".\r\n")
    except (SMTPException, OSError) as error:
        raise _Lost(str(error)) from error
    try:
        answer = await protocol.read_response(timeout=seconds)
    except (SMTPException, OSError) as error:
        raise MailPerhapsSent(f"{MailPerhapsSent.__doc__} ({error})") from error
    if answer.code == SMTPStatus.domain_unavailable:
        client.close()
    if answer.code // 100 not in (2, 4, 5):
        raise MailPerhapsSent(f"{MailPerhapsSent.__doc__} ({answer.code} is no answer to a mail.)")
    return answer


def _refused(answer: SMTPResponse, letter: Letter) -> Outcome:
    """The outcome of a refusal for good (5xx). Raises MailPostponed for any other answer."""
    said = _said(answer, letter)
    if answer.code in _PERHAPS_ALL or not 500 <= answer.code < 600:
        raise MailPostponed(
            f"The mail server does not take this mail now: {said}", perhaps_all=answer.code in _PERHAPS_ALL
        )
    return Outcome("refused", said)


def _is_ok(answer: SMTPResponse) -> bool:
    return 200 <= answer.code < 300


def _said(answer: SMTPResponse, letter: Letter) -> str:
    """What the server said, without saying of whom: logs need not know who it was."""
    line = _on_one_line(answer.code, answer.message)
    return re.sub(re.escape(letter.recipient), "the recipient", line, flags=re.IGNORECASE)


def _on_one_line(code: int, message: str) -> str:
    """An answer without line breaks, and without bytes that are not text."""
    text = message.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return f"{code} {' '.join(text.split())}".replace("\0", "")[:500]
