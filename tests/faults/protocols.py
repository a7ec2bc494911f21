"""Parsers that recognize the steps of a protocol in the bytes that a proxy forwards.

A parser follows one connection from its first byte, however the bytes are split into reads, and returns the
steps that are complete with each read. It implements no more of a protocol than that needs.
"""

import re
import struct
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Final, NamedTuple, Protocol


class Step(Enum):
    """A step of a protocol."""

    COMMIT = auto()
    COMMITTED = auto()
    PUBLISH = auto()
    """A message with its whole content."""
    CONFIRM = auto()
    DELIVERY = auto()
    ACKNOWLEDGEMENT = auto()
    FINAL_DOT = auto()
    MAIL_TAKEN = auto()
    CHANGE = auto()
    """An HTTP request other than GET or HEAD, with its body."""
    ANSWER = auto()
    """The head of an HTTP response to a CHANGE."""


class Parsed(NamedTuple):
    """A step, and its position in the last read."""

    step: Step
    begin: int
    """The offset of its first byte; 0 if that was in an earlier read."""
    end: int
    """The offset after its last byte."""
    key: object
    """Equal for a request and its answer, and unique on the connection otherwise."""


class Parser(Protocol):
    """Parses one connection."""

    name: str
    """The name that the client gives itself; empty before that."""

    def client(self, data: bytes) -> list[Parsed]:
        """The steps that the client's next bytes complete."""
        ...

    def server(self, data: bytes) -> list[Parsed]:
        """The steps that the server's next bytes complete."""
        ...


class Frames:
    """Splits a stream into frames whose head contains their size."""

    def __init__(self, head: int, size: Callable[[bytes], int], *, keep: int = 64) -> None:
        self.head = head
        """The length of the head. It may change between two frames, like `size`."""
        self.size = size
        """Returns the size of the whole frame from its head."""
        self._keep = keep
        self._start = b""
        self._missing: int | None = None

    def feed(self, data: bytes) -> Iterator[tuple[bytes, int, int]]:
        """For each frame that these bytes complete: its first bytes, and the offsets of its begin and end."""
        position = begin = 0
        while position < len(data):
            if self._missing is None:
                piece = data[position : position + self.head - len(self._start)]
                self._start += piece
                position += len(piece)
                if len(self._start) < self.head:
                    return
                self._missing = max(0, self.size(self._start) - self.head)
            taken = min(self._missing, len(data) - position)
            if (room := self._keep - len(self._start)) > 0:
                self._start += data[position : position + min(taken, room)]
            position += taken
            self._missing -= taken
            if not self._missing:
                start, self._start, self._missing = self._start, b"", None
                yield start, begin, position
                begin = position


class PostgresParser:
    """PostgreSQL's protocol 3: https://www.postgresql.org/docs/current/protocol-message-formats.html"""

    STARTUP: Final = 196608
    ASKS_TO_ENCRYPT: Final = (80877103, 80877104)
    _USER: Final = re.compile(rb"\0user\0([^\0]*)\0")

    def __init__(self) -> None:
        self.name = ""
        self._client = Frames(8, self._size_of_startup, keep=1024)
        self._server = Frames(5, self._size)
        self._encryption = False
        """Whether the server's next byte answers an encryption request; no server here encrypts."""
        self._commits = 0

    @staticmethod
    def _size(head: bytes) -> int:
        return 1 + int.from_bytes(head[1:5])

    @staticmethod
    def _size_of_startup(head: bytes) -> int:
        return int.from_bytes(head[:4])

    def client(self, data: bytes) -> list[Parsed]:
        parsed = []
        for start, begin, end in self._client.feed(data):
            if self._client.head == 8:
                self._start_up(start)
            elif start == b"Q\0\0\0\x0bCOMMIT\0":
                self._commits += 1
                parsed.append(Parsed(Step.COMMIT, begin, end, self._commits))
        return parsed

    def server(self, data: bytes) -> list[Parsed]:
        if self._encryption and data:
            self._encryption = False
            data = data[1:]  # the server sends nothing else before the client continues
        return [
            Parsed(Step.COMMITTED, begin, end, self._commits)
            for start, begin, end in self._server.feed(data)
            if start == b"C\0\0\0\x0bCOMMIT\0"
        ]

    def _start_up(self, start: bytes) -> None:
        code = int.from_bytes(start[4:8])
        if code in self.ASKS_TO_ENCRYPT:
            self._encryption = True
        else:
            found = self._USER.search(start[7:])
            self.name = found[1].decode() if found else ""
            self._client.head, self._client.size = 5, self._size


class AmqpParser:
    """AMQP 0-9-1 with RabbitMQ's confirms: https://www.rabbitmq.com/docs/amqp-0-9-1-reference"""

    GREETING: Final = b"AMQP"
    _METHOD, _HEADER, _BODY = 1, 2, 3
    _START_OK, _SELECT = (10, 11), (85, 10)
    _PUBLISH, _DELIVER, _ACK, _NACK = (60, 40), (60, 60), (60, 80), (60, 120)
    _NAME: Final = re.compile(rb"\x0fconnection_nameS(....)", re.DOTALL)

    def __init__(self) -> None:
        self.name = ""
        self._client = Frames(8, lambda _: 8, keep=2048)  # the greeting
        self._server = Frames(7, self._size)
        self._published: dict[int, int] = {}
        """The number of messages published on each channel in confirm mode."""
        self._unconfirmed: dict[int, set[int]] = {}
        self._publishing: dict[int, tuple[int | None, int]] = {}
        """By channel: the missing bytes of content (None before its header), and the publish's offset."""

    @staticmethod
    def _size(head: bytes) -> int:
        return 8 + int.from_bytes(head[3:7])

    def client(self, data: bytes) -> list[Parsed]:
        parsed = []
        self._publishing = {channel: (missing, 0) for channel, (missing, _) in self._publishing.items()}
        for start, begin, end in self._client.feed(data):
            if self._client.head == 8:
                self._client.head, self._client.size = 7, self._size
                continue
            kind, channel, size = struct.unpack_from(">BHI", start)
            if kind == self._METHOD:
                method, arguments = struct.unpack_from(">HH", start, 7), start[11:]
                if method == self._PUBLISH:
                    self._publishing[channel] = (None, begin)
                elif method == self._ACK:
                    parsed.append(Parsed(Step.ACKNOWLEDGEMENT, begin, end, None))
                elif method == self._SELECT:
                    self._published[channel], self._unconfirmed[channel] = 0, set()
                elif method == self._START_OK:
                    self._learn_name(arguments)
            elif channel in self._publishing:
                missing, since = self._publishing[channel]
                if kind == self._HEADER:
                    missing = int.from_bytes(start[11:19])
                elif kind == self._BODY and missing is not None:
                    missing -= size
                self._publishing[channel] = (missing, since)
                if missing == 0:
                    parsed.append(self._end_publish(channel, since, end))
        return parsed

    def server(self, data: bytes) -> list[Parsed]:
        parsed = []
        for start, begin, end in self._server.feed(data):
            kind, channel, _ = struct.unpack_from(">BHI", start)
            if kind != self._METHOD:
                continue
            method = struct.unpack_from(">HH", start, 7)
            if method == self._DELIVER:
                parsed.append(Parsed(Step.DELIVERY, begin, end, None))
            elif method in (self._ACK, self._NACK) and channel in self._unconfirmed:
                tag, multiple = struct.unpack_from(">QB", start, 11)
                settled = {n for n in self._unconfirmed[channel] if n == tag or (multiple & 1 and n < tag)}
                self._unconfirmed[channel] -= settled
                if method == self._ACK:
                    parsed += [
                        Parsed(Step.CONFIRM, begin, end, (channel, number)) for number in sorted(settled)
                    ]
        return parsed

    def _end_publish(self, channel: int, begin: int, end: int) -> Parsed:
        del self._publishing[channel]
        if channel not in self._published:
            return Parsed(Step.PUBLISH, begin, end, None)
        self._published[channel] += 1
        key = self._published[channel]
        self._unconfirmed[channel].add(key)
        return Parsed(Step.PUBLISH, begin, end, (channel, key))

    def _learn_name(self, arguments: bytes) -> None:
        if found := self._NAME.search(arguments):
            size = int.from_bytes(found[1])
            self.name = arguments[found.end() : found.end() + size].decode()


class SmtpParser:
    """SMTP (RFC 5321), not encrypted."""

    GREETING: Final = b"220"
    _END: Final = b"\r\n.\r\n"

    def __init__(self) -> None:
        self.name = ""
        self._content = False
        self._tail = b""
        """The last bytes of the content."""
        self._line = b""
        """The server's unfinished line."""
        self._waiting = False
        """Whether the final dot is sent but not answered."""
        self._mails = 0

    def client(self, data: bytes) -> list[Parsed]:
        if not self._content:
            return []  # commands, until the server answers 354
        window = self._tail + data
        at = window.find(self._END)
        if at < 0:
            self._tail = window[-4:]
            return []
        end = at + len(self._END) - len(self._tail)
        self._content, self._waiting = False, True
        self._mails += 1
        return [Parsed(Step.FINAL_DOT, max(0, end - 3), end, self._mails)]

    def server(self, data: bytes) -> list[Parsed]:
        parsed, begin = [], 0
        while (at := data.find(b"\n", begin)) >= 0:
            line = self._line + data[begin : at + 1]
            self._line = b""
            if line[:4] == b"354 ":
                self._content, self._tail = True, b"\r\n"
            elif self._waiting and line[3:4] == b" ":
                self._waiting = False
                if line[:1] == b"2":
                    parsed.append(Parsed(Step.MAIL_TAKEN, begin, at + 1, self._mails))
            begin = at + 1
        self._line += data[begin:]
        return parsed


class HttpParser:
    """HTTP/1.1 with Content-Length; it parses nothing after a body without one."""

    METHODS: Final = (b"GET ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"HEAD ")
    _LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)

    def __init__(self) -> None:
        self.name = ""
        self._client, self._server = _HttpStream(), _HttpStream()
        self._methods: list[bytes] = []
        """The methods of unanswered requests."""
        self._changes = self._answered = 0

    def client(self, data: bytes) -> list[Parsed]:
        parsed = []
        for head, begin, _, end in self._client.feed(data):
            method = head.split(b" ", 1)[0]
            self._methods.append(method)
            if method not in (b"GET", b"HEAD"):
                self._changes += 1
                parsed.append(Parsed(Step.CHANGE, begin, end, self._changes))
        return parsed

    def server(self, data: bytes) -> list[Parsed]:
        parsed = []
        for _, begin, head_end, _ in self._server.feed(data, whole=False):
            if self._methods and self._methods.pop(0) not in (b"GET", b"HEAD"):
                self._answered += 1
                parsed.append(Parsed(Step.ANSWER, begin, head_end, self._answered))
        return parsed


class _HttpStream:
    """One direction of HTTP: heads, each with the body that it announces."""

    def __init__(self) -> None:
        self._head = b""
        self._missing = 0
        self._lost = False

    def feed(self, data: bytes, *, whole: bool = True) -> Iterator[tuple[bytes, int, int, int]]:
        """Yields the offsets and head of each complete message; with `whole=False`, of each complete head."""
        position = begin = 0
        while position < len(data) and not self._lost:
            if not self._missing:
                searched = len(self._head)
                self._head += data[position:]
                end = self._head.find(b"\r\n\r\n", max(0, searched - 3)) + 4
                if end < 4:
                    return
                self._head, position = self._head[:end], position + end - searched
                found = HttpParser._LENGTH.search(self._head)
                self._missing = int(found[1]) if found else 0
                self._lost = b"\r\ntransfer-encoding:" in self._head.lower()
                if not whole:
                    yield self._head, begin, position, position
            head_end = position
            taken = min(self._missing, len(data) - position)
            position += taken
            self._missing -= taken
            if not self._missing:
                head, self._head = self._head, b""
                if whole:
                    yield head, begin, head_end, position
                begin = position


def parser_for_client(first: bytes) -> Parser | None:
    """The parser for a connection whose client sends these bytes first; None for an unknown protocol."""
    if first.startswith(AmqpParser.GREETING):
        return AmqpParser()
    if int.from_bytes(first[4:8]) in (PostgresParser.STARTUP, *PostgresParser.ASKS_TO_ENCRYPT):
        return PostgresParser()
    if first.startswith(HttpParser.METHODS):
        return HttpParser()
    return None


def parser_for_server(first: bytes) -> Parser | None:
    """The parser for a connection whose server sends these bytes first; None for an unknown protocol."""
    return SmtpParser() if first.startswith(SmtpParser.GREETING) else None
