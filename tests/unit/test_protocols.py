"""The steps that a parser recognizes do not depend on how the bytes are split into reads."""

import struct
from collections.abc import Sequence
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.protocols import Parser, Step, parser_for_client, parser_for_server

Dialogue: TypeAlias = Sequence[tuple[str, bytes]]
"""Who sends which bytes, in order."""


def message(kind: bytes, content: bytes) -> bytes:
    return kind + (len(content) + 4).to_bytes(4) + content


COMMIT, COMMITTED = message(b"Q", b"COMMIT\0"), message(b"C", b"COMMIT\0")
STARTUP = b"\0\x03\0\0user\0shop_billing\0database\0shop\0\0"
POSTGRES: Dialogue = (
    ("client", b"\0\0\0\x08\x04\xd2\x16\x2f"),  # encryption request
    ("server", b"N"),
    ("client", (len(STARTUP) + 4).to_bytes(4) + STARTUP),
    ("server", message(b"R", b"\0\0\0\0") + message(b"Z", b"I")),
    ("client", message(b"Q", b"SELECT '" + COMMIT + b"'\0") + COMMIT),
    ("server", message(b"D", COMMITTED) + message(b"C", b"ROLLBACK\0") + message(b"Z", b"I")),
    ("client", COMMIT),
    ("server", COMMITTED + message(b"Z", b"I")),
)


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def method(channel: int, group: int, number: int, arguments: bytes = b"") -> bytes:
    return frame(1, channel, struct.pack(">HH", group, number) + arguments)


def published(channel: int, *parts: bytes) -> bytes:
    header = struct.pack(">HHQH", 60, 0, sum(map(len, parts)), 0)
    bodies = b"".join(frame(3, channel, part) for part in parts)
    return method(channel, 60, 40, b"\0\0\0\0\0") + frame(2, channel, header) + bodies


CONFIRM = struct.pack(">HHQB", 60, 80, 1, 0)
AMQP: Dialogue = (
    ("client", b"AMQP\0\0\x09\x01"),
    ("server", method(0, 10, 10, b"\0\x09")),
    ("client", method(0, 10, 11, b"\0\0\0\x22\x0fconnection_nameS\0\0\0\x13orderflow publisher\x05PLAIN")),
    ("client", method(1, 85, 10, b"\0")),
    ("client", published(1, CONFIRM, CONFIRM) + published(1)),  # whose content looks like confirms
    ("client", published(1, b"x" * 300)),
    ("server", method(1, 60, 80, struct.pack(">QB", 2, 1))),
    ("server", method(1, 60, 120, struct.pack(">QB", 3, 0))),
    ("server", method(2, 60, 60, b"\x01c" + b"\0" * 9) + frame(3, 2, method(2, 60, 60))),
    ("client", method(2, 60, 80, struct.pack(">QB", 1, 0))),
)

SMTP: Dialogue = (
    ("server", b"220 mail.example ESMTP\r\n"),
    ("client", b"EHLO me\r\n"),
    ("server", b"250-mail.example\r\n250 SMTPUTF8\r\n"),
    ("client", b"DATA\r\n"),
    ("server", b"354 Go on\r\n"),
    ("client", b"Subject: a dot\r\n\r\n..\r\nnot.\r\n .\r\n.\r\n"),
    ("server", b"451 Not now\r\n"),
    ("client", b"DATA\r\n"),
    ("server", b"354 Go on\r\n"),
    ("client", b".\r\n"),
    ("server", b"250-2.0.0 Ok\r\n250 2.0.0 queued\r\n"),
    ("client", b"QUIT\r\n"),
    ("server", b"221 Bye\r\n"),
)

HTTP: Dialogue = (
    ("client", b"GET /v1/a HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("server", b"HTTP/1.1 200 OK\r\nContent-Length: 39\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"),
    ("client", b"POST /v1/b HTTP/1.1\r\ncontent-length: 9\r\n\r\nPOST /a\r\n"),
    ("server", b"HTTP/1.1 402 Payment Required\r\nContent-Length: 2\r\n\r\n{}"),
    ("client", b"DELETE /v1/b HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("server", b"HTTP/1.1 204 No Content\r\n\r\n"),
)

DIALOGUES = {
    "PostgreSQL": (POSTGRES, [(Step.COMMIT, 1), (Step.COMMIT, 2), (Step.COMMITTED, 2)]),
    "AMQP": (
        AMQP,
        [
            *((Step.PUBLISH, (1, number)) for number in (1, 2, 3)),
            *((Step.CONFIRM, (1, number)) for number in (1, 2)),
            (Step.DELIVERY, None),
            (Step.ACKNOWLEDGEMENT, None),
        ],
    ),
    "SMTP": (SMTP, [(Step.FINAL_DOT, 1), (Step.FINAL_DOT, 2), (Step.MAIL_TAKEN, 2)]),
    "HTTP": (
        HTTP,
        [(Step.CHANGE, 1), (Step.ANSWER, 1), (Step.CHANGE, 2), (Step.ANSWER, 2)],
    ),
}


@pytest.mark.parametrize("protocol", DIALOGUES)
@given(data=st.data())
def test_steps_are_recognized_however_the_bytes_are_split(protocol: str, data: st.DataObject) -> None:
    dialogue, expected = DIALOGUES[protocol]
    who, first = dialogue[0]
    parser: Parser | None = (parser_for_client if who == "client" else parser_for_server)(first)
    assert parser
    steps = []
    for who, sent in dialogue:
        cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(sent) - 1)), max_size=4)))
        for begin, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
            read = sent[begin:end]
            for each in (parser.client if who == "client" else parser.server)(read):
                assert 0 <= each.begin <= each.end <= len(read)
                steps.append((each.step, each.key))
    assert steps == expected


def test_a_parser_knows_the_clients_name() -> None:
    names = []
    for dialogue in (POSTGRES, AMQP):
        parser = parser_for_client(dialogue[0][1])
        assert parser
        for who, sent in dialogue:
            (parser.client if who == "client" else parser.server)(sent)
        names.append(parser.name)
    assert names == ["shop_billing", "orderflow publisher"]


def test_an_unknown_protocol_has_no_parser() -> None:
    assert parser_for_client(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03") is None
    assert parser_for_server(b"+OK POP3") is None
