"""A mail server that records every mail it accepts, independently of the system's records."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, cast

_HEADER: Final = re.compile(rb"^(To|Message-ID):[ \t]*(.*(?:\r\n[ \t].*)*)\r\n", re.IGNORECASE | re.MULTILINE)
_ADDRESS: Final = re.compile(rb"<([^>]+)>\s*$")

UNKNOWN_RECIPIENT: Final = "nobody-"
"""The prefix of addresses that this server refuses for good (550)."""


class Mailbox:
    """Accepts every mail and counts its recipients; it does not keep the content."""

    def __init__(self) -> None:
        self.accepted: Counter[tuple[str, str]] = Counter()
        """How often each mail was accepted, by Message-ID and the recipient on its envelope."""
        self.misdirected: list[tuple[str, str, str]] = []
        """Message-ID, recipient on the envelope and address in the mail, where the last two differ."""
        self.answers: dict[str, str] = {}
        """Overrides answers, by command (CONTENT is the mail itself); an empty one is a reset."""
        self.overridden = 0
        """How often an override was used."""
        self.refused: Counter[str] = Counter()
        """How often each unknown recipient was refused."""
        self.port = 0

    def accept(self, recipient: str, content: bytes) -> None:
        """Records one mail."""
        head = content[: content.index(b"\r\n\r\n") + 2]
        headers = {name.lower(): value for name, value in _HEADER.findall(head)}
        message_id = headers.get(b"message-id", b"").decode()
        to = _ADDRESS.search(headers.get(b"to", b""))
        address = to[1].decode() if to else ""
        if address != recipient:
            self.misdirected.append((message_id, recipient, address))
        self.accepted[message_id, recipient] += 1


class _SmtpSession(asyncio.Protocol):
    """The part of SMTP (RFC 5321) that a client needs to send mails."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._received = b""
        self._content = False
        self._recipient = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's type is not a Transport
        self._say(b"220 mail.example ESMTP")

    def data_received(self, data: bytes) -> None:
        self._received += data
        while True:
            end = b"\r\n.\r\n" if self._content else b"\r\n"
            piece, found, rest = self._received.partition(end)
            if not found:
                return
            self._received = rest
            if self._content:
                self._content = False
                if not self._is_overridden("CONTENT"):
                    self._mailbox.accept(self._recipient, piece)
                    self._say(b"250 2.0.0 Ok")
            else:
                self._answer(piece)

    def _answer(self, line: bytes) -> None:
        command = line[:4].upper()
        if self._is_overridden(command.decode(errors="replace")):
            return
        if command == b"EHLO":
            self._say(b"250-mail.example\r\n250 SMTPUTF8")
        elif command == b"RCPT":
            self._recipient = line.partition(b"<")[2].partition(b">")[0].decode()
            if self._recipient.startswith(UNKNOWN_RECIPIENT):
                self._mailbox.refused[self._recipient] += 1
                self._say(b"550 5.1.1 No such mailbox")
            else:
                self._say(b"250 2.1.5 Ok")
        elif command == b"DATA":
            self._content = True
            self._say(b"354 Go on")
        elif command == b"QUIT":
            self._say(b"221 2.0.0 Bye")
            self._transport.close()
        else:
            self._say(b"250 2.0.0 Ok")

    def _is_overridden(self, command: str) -> bool:
        """Sends the override for this command, if there is one; returns whether it did."""
        answer = self._mailbox.answers.get(command)
        if answer is None:
            return False
        self._mailbox.overridden += 1
        if answer:
            self._say(answer.encode())
        else:
            self._transport.abort()
        return True

    def _say(self, line: bytes) -> None:
        self._transport.write(line + b"\r\n")


@asynccontextmanager
async def mailbox() -> AsyncIterator[Mailbox]:
    """A mail server on a free local port."""
    box = Mailbox()
    server = await asyncio.get_running_loop().create_server(lambda: _SmtpSession(box), "127.0.0.1", 0)
    box.port = server.sockets[0].getsockname()[1]
    async with server:
        yield box
        server.close()
