"""A real SMTP server on a free port of this machine, with answers that a test chooses."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, Final

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

CUT: Final = "cut"
"""In place of an answer: the server ends the connection without one."""
SILENCE: Final = "silence"
"""In place of an answer: the server sends nothing more."""


@dataclass(frozen=True)
class Received:
    """A mail that the server has accepted."""

    sender: str
    recipient: str
    content: bytes
    tls: bool
    user: str | None

    @property
    def message(self) -> EmailMessage:
        message = message_from_bytes(self.content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        return message


class MailServer:
    """Takes every mail, unless `answers` has another answer to MAIL, RCPT, DATA, RSET or CONTENT.

    CONTENT is the answer to the mail itself, after its final dot; with CUT the mail was accepted.
    GREETING answers a new connection in place of 220, and ends it. `to` holds fixed answers to RCPT, by
    recipient.
    """

    def __init__(self, **options: Any) -> None:
        self.mails: list[Received] = []
        self.answers: dict[str, deque[str]] = defaultdict(deque)
        self.to: dict[str, str] = {}
        self.holds: dict[str, asyncio.Event] = {}
        """Events that the answer to RCPT waits for, by recipient."""
        self.most_connections: int | None = None
        """Most connections at a time. Further ones are refused with a 421, as Postfix and others do."""
        self.connections = 0
        """The number of connections so far, without those refused."""
        self.open = 0
        """The number of open connections."""
        self.turned_away = 0
        self.commands: list[str] = []
        self.port = 0
        self._options = {"hostname": "mail.example", "enable_SMTPUTF8": True} | options
        self._open: set[asyncio.BaseTransport] = set()
        self._server: asyncio.Server | None = None
        self._arrived = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._conversation, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def _conversation(self) -> asyncio.Protocol:
        if self.most_connections is not None and self.open >= self.most_connections:
            self.turned_away += 1
            return _TurnedAway("421 4.7.0 Too many connections")
        if self.answers["GREETING"]:
            return _TurnedAway(self.answers["GREETING"].popleft())
        self.connections += 1
        self.open += 1
        return _Conversation(self, **self._options)

    async def stop(self) -> None:
        """The server is down: its port is closed, and so is every connection."""
        assert self._server
        self._server.close()
        self.cut_all()
        await self._server.wait_closed()

    def cut_all(self) -> None:
        """Ends every connection."""
        for transport in list(self._open):
            assert isinstance(transport, asyncio.Transport)
            transport.abort()

    async def received(self, count: int) -> list[Received]:
        """The mails, once there are `count`."""
        async with asyncio.timeout(30), self._arrived:
            await self._arrived.wait_for(lambda: len(self.mails) >= count)
        return self.mails

    def opened(self, transport: asyncio.BaseTransport) -> None:
        self._open.add(transport)

    def ended(self, transport: asyncio.BaseTransport) -> None:
        self.open -= 1
        self._open.discard(transport)

    async def say(self, command: str, otherwise: str, transport: asyncio.Transport) -> str:
        self.commands.append(command)
        answer = self.answers[command].popleft() if self.answers[command] else otherwise
        if answer == CUT:
            transport.abort()
        if answer in (CUT, SILENCE):
            await asyncio.Event().wait()
        if answer.startswith("421"):  # the connection ends after it: RFC 5321, 3.8
            asyncio.get_running_loop().call_soon(transport.close)
        return answer

    # The handler's methods, which aiosmtpd calls

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, _: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        return await self.say("MAIL", "250 2.1.0 Ok", _transport(server))

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, _: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.holds:
            await self.holds[address].wait()
        answer = await self.say("RCPT", self.to.get(address, "250 2.1.5 Ok"), _transport(server))
        if answer.startswith("2"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content
        assert isinstance(content, bytes)
        assert envelope.mail_from is not None
        login: object = session.auth_data
        user = login.login.decode() if isinstance(login, LoginPassword) else None
        [recipient] = envelope.rcpt_tos
        mail = Received(envelope.mail_from, recipient, content, session.ssl is not None, user)
        answers = self.answers["CONTENT"]
        if not answers or answers[0] in (CUT, SILENCE) or answers[0].startswith("2"):
            async with self._arrived:
                self.mails.append(mail)
                self._arrived.notify_all()
        return await self.say("CONTENT", f"250 2.0.0 Ok: queued as {len(self.mails)}", _transport(server))

    async def handle_RSET(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        return await self.say("RSET", "250 2.0.0 Ok", _transport(server))


class _Conversation(SMTP):
    """One connection to the server."""

    def __init__(self, mail_server: MailServer, **options: Any) -> None:
        self._mail_server = mail_server
        super().__init__(mail_server, loop=asyncio.get_running_loop(), **options)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._mail_server.opened(transport)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self.transport is not None:
            self._mail_server.ended(self.transport)
        super().connection_lost(error)

    async def smtp_EHLO(self, hostname: str) -> None:  # noqa: N802
        answer = await self._mail_server.say("EHLO", "", _transport(self))
        if answer:
            await self.push(answer)
        else:
            await super().smtp_EHLO(hostname)

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802
        answer = await self._mail_server.say("DATA", "", _transport(self))
        if answer:
            await self.push(answer)
        else:
            await super().smtp_DATA(arg)


class _TurnedAway(asyncio.Protocol):
    """A connection that gets another greeting than 220 and ends; without a greeting it stays open."""

    def __init__(self, greeting: str) -> None:
        self._greeting = greeting

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if self._greeting != SILENCE:
            transport.write(f"{self._greeting}\r\n".encode())
            transport.close()


def _transport(server: SMTP) -> asyncio.Transport:
    assert isinstance(server.transport, asyncio.Transport)
    return server.transport


@asynccontextmanager
async def mail_server(**options: Any) -> AsyncIterator[MailServer]:
    """A server that runs until the block ends. Options are those of `aiosmtpd.smtp.SMTP`."""
    server = MailServer(**options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def authenticates(username: str, password: str) -> Callable[..., AuthResult]:
    """An aiosmtpd authenticator that knows one user."""

    def check(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
        assert isinstance(data, LoginPassword)
        known = data.login == username.encode() and data.password == password.encode()
        return AuthResult(success=known, handled=False, auth_data=data)

    return check
