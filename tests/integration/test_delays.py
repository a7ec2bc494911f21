"""Each waiting row is announced as a delay once for each reason."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from chassis import database
from events import envelope, parked
from events.contracts import Paid
from events.delays import MAX_ANNOUNCED, WaitReason
from events.leases import Deferral
from events.retry import Failure
from events.transactions import Transactions
from services.shipment import repository
from services.shipment.domain import Shipment
from tests.factories import a_payment, an_invoice, an_order, one_of_each

MANY_SETTLED = """
    INSERT INTO shipments (id, order_id, paid, state, claimed_until)
    SELECT gen_random_uuid(), gen_random_uuid(), paid, 'shipped', now()
    FROM shipments, generate_series(1, 20000)"""
MANY_WAITING = """
    INSERT INTO shipments (id, order_id, paid, state, claimed_until, waits_since)
    SELECT gen_random_uuid(), gen_random_uuid(), paid, 'pending', now(), waits_since
    FROM shipments, generate_series(1, $1)"""


@pytest.fixture
async def transactions(service_url: Callable[[str], Awaitable[str]]) -> AsyncIterator[Transactions]:
    async with database.connect(await service_url("shipment"), pool=4, application="test") as pool:
        yield Transactions(pool)


async def some_shipments(transactions: Transactions, count: int, *, age: int = 120) -> list[Shipment]:
    """Shipments that have waited to be booked for `age` seconds."""
    orders = [an_order() for _ in range(count)]
    paid = [Paid(order=order, invoice=an_invoice(), payment=a_payment(order)) for order in orders]
    async with transactions() as tx:
        shipments = await repository.add(tx, paid)
        await tx.execute("UPDATE shipments SET waits_since = now() - make_interval(secs => $1)", age)
    return shipments


async def failed(
    transactions: Transactions, shipment: Shipment, failure: Failure, state: str | None = None
) -> None:
    async with transactions() as tx:
        await repository.PENDING_SHIPMENTS.defer(tx, [Deferral(shipment.id, failure, "it failed", 30, state)])


async def announced(
    transactions: Transactions, *, in_outage: bool = False
) -> list[tuple[Shipment, WaitReason]]:
    async with transactions() as tx:
        found = await repository.PENDING_SHIPMENTS.announce(tx, in_outage=in_outage)
    return [(each.row, each.why) for each in found]


def whys(found: Sequence[tuple[Shipment, WaitReason]]) -> list[WaitReason]:
    return [why for _, why in found]


async def test_a_row_is_announced_after_a_minute_and_once_for_each_reason(
    transactions: Transactions,
) -> None:
    [fresh] = await some_shipments(transactions, 1, age=50)
    await failed(transactions, fresh, "unknown")
    assert await announced(transactions) == []
    async with transactions() as tx:
        await tx.execute("UPDATE shipments SET waits_since = now() - interval '61 seconds'")
    assert await announced(transactions) == [(fresh, "unknown")]
    seen: list[WaitReason] = []
    for failure in ("unknown", "outage", "unknown", "outage", "postponed", "defect", "unknown", "defect"):
        await failed(transactions, fresh, failure)
        seen += whys(await announced(transactions))
    assert seen == ["outage", "postponed", "defect"]


async def test_an_untried_row_waits_for_its_turn_or_for_the_end_of_an_outage(
    transactions: Transactions,
) -> None:
    [shipment] = await some_shipments(transactions, 1)
    assert whys(await announced(transactions)) == ["backlog"]
    assert whys(await announced(transactions, in_outage=True)) == ["outage"]
    assert await announced(transactions) == []  # the backlog again, which was announced before
    [another] = [each for each in await some_shipments(transactions, 1) if each.id != shipment.id]
    await failed(transactions, another, "unknown")
    assert await announced(transactions, in_outage=True) == [(another, "outage")]


async def test_a_row_that_was_given_up_waits_for_a_person(transactions: Transactions) -> None:
    [shipment] = await some_shipments(transactions, 1)
    await failed(transactions, shipment, "defect", "dead")
    assert await announced(transactions) == [(shipment, "dead")]
    assert await announced(transactions) == []


async def test_the_longest_waiting_come_first_so_many_at_a_time(transactions: Transactions) -> None:
    await some_shipments(transactions, 1)
    async with transactions() as tx:
        await tx.execute(MANY_WAITING, MAX_ANNOUNCED)
        await tx.execute("UPDATE shipments SET waits_since = waits_since - random() * interval '1 minute'")
        [oldest] = await tx.fetch("SELECT id FROM shipments ORDER BY waits_since LIMIT 1")
    first = await announced(transactions)
    assert first[0][0].id == oldest["id"]
    assert [len(first), len(await announced(transactions)), len(await announced(transactions))] == [
        MAX_ANNOUNCED,
        1,
        0,
    ]


async def test_of_several_processes_each_announces_other_rows_and_waits_for_no_lock(
    transactions: Transactions,
) -> None:
    shipments = await some_shipments(transactions, 3)
    async with transactions() as tx:  # somebody is settling this one
        await tx.execute("SELECT FROM shipments WHERE id = $1 FOR UPDATE", shipments[0].id)
        async with asyncio.timeout(30):
            found = [*await announced(transactions), *await announced(transactions)]
    assert sorted(row.id for row, _ in found) == sorted(each.id for each in shipments[1:])
    assert [row.id for row, _ in await announced(transactions)] == [shipments[0].id]


async def test_the_search_reads_no_settled_rows(transactions: Transactions) -> None:
    """Its cost does not grow with the number of settled rows."""
    await some_shipments(transactions, 1)
    async with transactions() as tx:
        await tx.execute(MANY_SETTLED)
    async with transactions() as tx:
        await tx.execute("ANALYZE shipments")
        plan = await tx.fetch(f"EXPLAIN {repository.PENDING_SHIPMENTS._announce.replace('$1', 'false')}")
    assert "Seq Scan on shipments" not in "\n".join(row[0] for row in plan)


async def test_a_parked_event_is_a_delay_unless_somebody_has_put_it_in_again(
    transactions: Transactions,
) -> None:
    failing, newer, refilled = (one_of_each()["PAYMENT_CONFIRMED"] for _ in range(3))
    async with transactions() as tx:
        await parked.park(tx, failing, ValueError("it broke"))
        await parked.park_rejected(tx, [envelope.rejected_without_handler(newer, "shipment")])
        await parked.park_for_replay(tx, [refilled])
        await tx.execute("UPDATE parked SET waits_since = now() - interval '2 minutes'")
    async with transactions() as tx:
        assert await parked.LEASES.announce(tx, in_outage=True) == []
        found = {each.row.id: each.why for each in await parked.LEASES.announce(tx, in_outage=False)}
    assert found == {failing.id: "defect", newer.id: "newer"}
