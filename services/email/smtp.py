"""Mails by SMTP (RFC 5321), over connections that are kept: opening one costs more than sending a mail."""

import math
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from aiosmtplib import SMTP, SMTPException, SMTPResponse, SMTPStatus

from services.email.domain import Outcome
from services.email.mailer import Letter, MailPerhapsSent, MailPostponed, MailServerUnavailable

COMMAND_SECONDS: Final = 3.0
"""Longest wait for a connection, and for the answer to a command."""
CONTENT_SECONDS: Final = 8.0
"""Longest wait for the answer to a whole mail."""
IDLE_SECONDS: Final = 20.0
"""A connection that was idle for longer is asked first whether it still works."""

_NOT_US: Final = (530, 534, 535, 538)  # authentication required or refused: RFC 4954, 6
_TOO_LARGE: Final = 552


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


class _Lost(Exception):
    """The connection ended before the mail was handed over."""


class SmtpMailer:
    """Hands mails to one mail server. There are as many connections as mails were in flight at a time.

    What goes wrong before the server hears of the recipient is the server's own state: nobody's mail is
    refused or counted for it. What the server says of the recipient or the content is this mail's alone.
    """

    def __init__(self, server: Server, domain: str) -> None:
        self._server = server
        self._domain = domain
        self._tls = ssl.create_default_context() if server.tls or server.starttls else None
        self._idle: list[tuple[SMTP, float]] = []
        """Connections, and since when each is idle."""

    async def send(self, letter: Letter) -> Outcome:
        """See Mailer."""
        kept = await self._take_idle()
        if kept:
            with suppress(_Lost, MailServerUnavailable):  # it ended while idle: once more over a new one
                return await self._send_over(kept, letter)
        try:
            return await self._send_over(await self._connect(), letter)
        except _Lost as error:
            raise MailPostponed(f"The mail server ended the conversation about this mail: {error}") from error

    async def close(self) -> None:
        """Says goodbye to the server."""
        while self._idle:
            client, _ = self._idle.pop()
            with suppress(SMTPException, OSError):
                await client.quit(timeout=COMMAND_SECONDS)
            client.close()

    # Connections

    async def _connect(self) -> SMTP:
        server = self._server
        client = SMTP(
            hostname=server.host,
            port=server.port,
            username=server.username,
            password=server.password,
            use_tls=server.tls,
            start_tls=server.starttls,
            tls_context=self._tls,
            local_hostname=self._domain,
            timeout=COMMAND_SECONDS,
        )
        try:
            await client.connect()
            if client.is_ehlo_or_helo_needed:
                await client.ehlo()
        except (SMTPException, OSError) as error:
            client.close()
            raise MailServerUnavailable(f"The mail server can't be used: {error}") from error
        except BaseException:
            client.close()
            raise
        return client

    async def _take_idle(self) -> SMTP | None:
        """The connection that was used last, if it still works and is ready for a mail."""
        while self._idle:
            client, since = self._idle.pop()
            try:
                if client.is_connected and time.monotonic() - since > IDLE_SECONDS:
                    await client.rset()
            except SMTPException:
                client.close()
            except BaseException:
                client.close()
                raise
            if client.is_connected:
                return client
        return None

    def _keep(self, client: SMTP, *, clean: bool) -> None:
        """One that is in the middle of a mail counts as idle for ever: it is reset before its use."""
        if client.is_connected:
            self._idle.append((client, time.monotonic() if clean else -math.inf))

    # One mail

    async def _send_over(self, client: SMTP, letter: Letter) -> Outcome:
        try:
            outcome = await _hand_over(client, letter)
        except MailPostponed:
            self._keep(client, clean=False)
            raise
        except BaseException:  # where the conversation stands is not known
            client.close()
            raise
        self._keep(client, clean=outcome.state == "sent")
        return outcome


@asynccontextmanager
async def connect(server: Server, domain: str) -> AsyncIterator[SmtpMailer]:
    """A mailer that greets the server as `domain`, and ends its connections at the end."""
    mailer = SmtpMailer(server, domain)
    try:
        yield mailer
    finally:
        await mailer.close()


async def _hand_over(client: SMTP, letter: Letter) -> Outcome:
    """The outcome. Raises _Lost while the mail can't have been taken, MailPerhapsSent when it can."""
    options = b""
    if not letter.recipient.isascii():
        if not client.supports_extension("smtputf8"):
            return Outcome("refused", "The mail server takes no addresses outside of ASCII (no SMTPUTF8).")
        options = b" BODY=8BITMIME SMTPUTF8"
    answer = await _ask(client, f"MAIL FROM:<{letter.sender}>".encode() + options)
    if answer.code == _TOO_LARGE:
        return _refused(answer, letter)
    if not _is_ok(answer):
        raise MailServerUnavailable(f"The mail server takes nothing from {letter.sender}: {_said(answer)}")
    answer = await _ask(client, f"RCPT TO:<{letter.recipient}>".encode())
    if not _is_ok(answer):
        return _refused(answer, letter)
    answer = await _ask(client, b"DATA")
    if answer.code != SMTPStatus.start_input:
        return _refused(answer, letter)
    answer = await _send_content(client, letter.content)
    if not _is_ok(answer):
        return _refused(answer, letter)
    return Outcome("sent", _said(answer))


async def _ask(client: SMTP, command: bytes) -> SMTPResponse:
    """The answer to a command. Raises _Lost without one, MailServerUnavailable when the server goes away."""
    try:
        answer = await client.execute_command(command, timeout=COMMAND_SECONDS)
    except (SMTPException, OSError) as error:
        raise _Lost(str(error)) from error
    return _about_the_mail(answer)


async def _send_content(client: SMTP, content: bytes) -> SMTPResponse:
    """The answer to the mail itself, with its final dot. Raises MailPerhapsSent without one."""
    protocol = client.protocol
    if protocol is None:
        raise _Lost("Connection lost")
    dotted = content.replace(b"\r\n.", b"\r\n..")  # RFC 5321, 4.5.2; the first line is a header
    try:
        protocol.write(dotted + b".\r\n")
        answer = await protocol.read_response(timeout=CONTENT_SECONDS)
    except (SMTPException, OSError) as error:
        raise MailPerhapsSent(f"{MailPerhapsSent.__doc__} ({error})") from error
    return _about_the_mail(answer)


def _about_the_mail(answer: SMTPResponse) -> SMTPResponse:
    """The answer. Raises MailServerUnavailable for one that has nothing to do with the mail."""
    if answer.code == SMTPStatus.domain_unavailable or answer.code in _NOT_US:
        raise MailServerUnavailable(f"The mail server takes no mail now: {_said(answer)}")
    return answer


def _refused(answer: SMTPResponse, letter: Letter) -> Outcome:
    """The outcome of a refusal for good (5xx). Raises MailPostponed for any other answer."""
    said = _said(answer).replace(letter.recipient, "the recipient")  # logs need not know who it was
    if not 500 <= answer.code < 600:
        raise MailPostponed(f"The mail server does not take this mail now: {said}")
    return Outcome("refused", said)


def _is_ok(answer: SMTPResponse) -> bool:
    return 200 <= answer.code < 300


def _said(answer: SMTPResponse) -> str:
    """What the server said, on one line, without bytes that are not text."""
    message = answer.message.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return f"{answer.code} {' '.join(message.split())}".replace("\0", "")[:500]
