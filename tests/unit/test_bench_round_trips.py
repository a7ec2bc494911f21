"""The benchmark counts round trips by the server's answers, in whatever pieces these arrive."""

import struct

import pytest

from bench.round_trips import AnswerCounter, Cost, cost_per_order


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


READY, IN_TRANSACTION = message(b"Z", b"I"), message(b"Z", b"T")
BEGIN, COMMIT = message(b"C", b"BEGIN\0"), message(b"C", b"COMMIT\0")
INSERT, ROW = message(b"C", b"INSERT 0 1\0"), message(b"D", b"Z\0\0\0\5I" * 9)
TRANSACTION = BEGIN + IN_TRANSACTION + ROW + INSERT + IN_TRANSACTION + COMMIT + READY


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_transaction_of_one_statement_is_three_round_trips(size: int) -> None:
    trips = Cost()
    answers = AnswerCounter(trips)
    for begin in range(0, len(TRANSACTION), size):
        answers.feed(TRANSACTION[begin : begin + size])
    assert trips == Cost(round_trips=3, statements=1, transactions=1)


def test_a_statement_alone_is_a_transaction() -> None:
    trips = Cost()
    AnswerCounter(trips).feed(ROW + INSERT + READY)
    assert trips == Cost(1, 1, 1)


def test_what_is_sent_in_one_go_is_one_round_trip() -> None:
    trips = Cost()
    AnswerCounter(trips).feed(BEGIN + INSERT + INSERT + COMMIT + READY)
    assert trips == Cost(1, 2, 1)


def test_preparing_a_statement_is_a_round_trip_and_no_transaction() -> None:
    trips = Cost()
    AnswerCounter(trips).feed(message(b"1", b"") + message(b"t", b"\0\0") + READY)
    assert trips == Cost(1, 0, 0)


def test_an_order_costs_what_an_idle_system_does_not() -> None:
    before = {"order": Cost(10, 10, 10)}
    after = {"order": Cost(75, 60, 35), "email": Cost(20, 10, 10)}
    idle = {"order": Cost(80, 65, 40), "email": Cost(20, 10, 10)}
    assert cost_per_order(before, after, idle, orders=5) == {
        "order": Cost(12, 9, 4),
        "email": Cost(4, 2, 2),
    }
