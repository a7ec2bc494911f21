"""Text from third parties is stored whatever characters it has: no row fails because of it."""

from uuid import uuid4

import pytest
from uuid_utils.compat import uuid7

from events import envelope, interventions, outbox, parked
from events.errors import Reject
from events.interventions import Subject
from events.leases import Deferral
from events.transactions import Transactions
from tests.factories import order_created

FOREIGN = "554 \udce7a ne va pas \0"
LEGIBLE = "554 \N{REPLACEMENT CHARACTER}a ne va pas \N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("repeat", [1, 200])
async def test_the_error_text_of_a_failed_row(transactions: Transactions, repeat: int) -> None:
    async with transactions() as tx:
        tx.emit(order_created())
    [message] = tx.messages
    async with transactions() as tx:
        await outbox.LEASES.defer(tx, [Deferral(message.id, "outage", FOREIGN * repeat, 1.0)])
    async with transactions() as tx:
        [row] = await tx.fetch("SELECT last_error FROM outbox")
    assert row["last_error"] == (LEGIBLE * repeat)[:1000]


async def test_the_error_text_of_a_failed_event(transactions: Transactions) -> None:
    event = order_created()
    async with transactions() as tx:
        await parked.park(tx, event, ValueError(FOREIGN))
        body = envelope.encode_one(event)
        await parked.park_again(tx, parked.ParkedEvent(event.id, body, 1), Reject(FOREIGN))
        await parked.park_rejected(tx, [envelope.undecodable(b"nothing", FOREIGN, FOREIGN)])
        rows = await tx.fetch("SELECT type, last_error FROM parked ORDER BY type")
    assert [tuple(row) for row in rows] == [(LEGIBLE, LEGIBLE), ("ORDER_CREATED", LEGIBLE)]


async def test_a_note_typed_in_a_terminal_of_another_encoding(transactions: Transactions) -> None:
    async with transactions() as tx:
        await interventions.record(tx, "discard", [Subject(uuid7())], actor=FOREIGN, note=FOREIGN)
        await interventions.record(tx, "discard", [Subject(uuid4())], actor="Ana")
        rows = await tx.fetch("SELECT actor, note FROM interventions ORDER BY id")
    assert [tuple(row) for row in rows] == [(LEGIBLE, LEGIBLE), ("Ana", None)]
