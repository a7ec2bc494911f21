"""A mail server that keeps a record of every mail it took: the fifth of the five independent records."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, cast

_HEADER: Final = re.compile(rb"^(To|Message-ID):[ \t]*(.*(?:\r\n[ \t].*)*)\r\n", re.IGNORECASE | re.MULTILINE)
_ADDRESS: Final = re.compile(rb"<([^>]+)>\s*$")

NOBODY: Final = "nobody-"
"""How addresses begin that this server refuses for good (550)."""


class Mailbox:
    """Takes every mail and remembers to whom each went and how often, not what was in it."""

    def __init__(self) -> None:
        self.taken: Counter[tuple[str, str]] = Counter()
        """How often a mail was taken: by Message-ID and the recipient on its envelope."""
        self.misdirected: list[tuple[str, str, str]] = []
        """Message-ID, recipient on the envelope, address in the mail: where the last two differ."""
        self.moods: dict[str, str] = {}
        """Other answers than usual, by command; CONTENT is the mail itself. An empty one is a reset."""
        self.grumbled = 0
        """How often it answered so."""
        self.refused: Counter[str] = Counter()
        """Recipients that do not exist here, and how often they were asked for."""
        self.port = 0

    def take(self, recipient: str, content: bytes) -> None:
        """One mail, for good."""
        head = content[: content.index(b"\r\n\r\n") + 2]
        headers = {name.lower(): value for name, value in _HEADER.findall(head)}
        message_id = headers.get(b"message-id", b"").decode()
        to = _ADDRESS.search(headers.get(b"to", b""))
        address = to[1].decode() if to else ""
        if address != recipient:
            self.misdirected.append((message_id, recipient, address))
        self.taken[message_id, recipient] += 1


class _Conversation(asyncio.Protocol):
    """SMTP (RFC 5321) as far as a client needs it to hand over mails."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._received = b""
        self._content = False
        self._recipient = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type
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
                if not self._grumbles("CONTENT"):
                    self._mailbox.take(self._recipient, piece)
                    self._say(b"250 2.0.0 Ok")
            else:
                self._obey(piece)

    def _obey(self, line: bytes) -> None:
        command = line[:4].upper()
        if self._grumbles(command.decode(errors="replace")):
            return
        if command == b"EHLO":
            self._say(b"250-mail.example\r\n250 SMTPUTF8")
        elif command == b"RCPT":
            self._recipient = line.partition(b"<")[2].partition(b">")[0].decode()
            if self._recipient.startswith(NOBODY):
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

    def _grumbles(self, command: str) -> bool:
        """Whether it has answered by its mood."""
        answer = self._mailbox.moods.get(command)
        if answer is None:
            return False
        self._mailbox.grumbled += 1
        if answer:
            self._say(answer.encode())
        else:
            self._transport.abort()
        return True

    def _say(self, line: bytes) -> None:
        self._transport.write(line + b"\r\n")


@asynccontextmanager
async def mailbox() -> AsyncIterator[Mailbox]:
    """A mail server on a free port of this machine."""
    box = Mailbox()
    server = await asyncio.get_running_loop().create_server(lambda: _Conversation(box), "127.0.0.1", 0)
    box.port = server.sockets[0].getsockname()[1]
    async with server:
        yield box
        server.close()
