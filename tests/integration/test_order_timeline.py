"""Each event about an order is a line of its timeline, and the lines give its status."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from events.contracts import AnyEvent, Order, PaymentConfirmed, Shipped
from events.transaction import Transaction
from services.order import repository
from tests.factories import an_order, one_of_each, order_created
from tests.order_service import OrderService, order_service

SHIPPED = ["INVOICE_CREATED", "PAYMENT_CONFIRMED", "SHIPPED"]
FAILED = ["INVOICE_CREATED", "PAYMENT_FAILED"]
REFUNDED = ["INVOICE_CREATED", "PAYMENT_CONFIRMED", "SHIPMENT_ERROR", "PAYMENT_REFUNDED"]


@pytest.fixture
async def service(service_url: Callable[[str], Awaitable[str]]) -> AsyncIterator[OrderService]:
    async with order_service(await service_url("order")) as service:
        yield service


async def accepted(service: OrderService) -> Order:
    """An order that was accepted, as its events carry it."""
    placed = await service.place()
    async with service.transactions() as tx:
        [record] = await tx.fetch("SELECT snapshot FROM orders WHERE id = $1", placed["id"])
    return msgspec.json.decode(record["snapshot"], type=Order)


async def dead(service: OrderService) -> list[tuple[str, ...]]:
    async with service.transactions() as tx:
        rows = await tx.fetch("SELECT type, reason, last_error FROM parked WHERE state = 'dead'")
    return [tuple(row.values()) for row in rows]


async def test_a_shipped_order_shows_its_invoice_payment_and_parcel(service: OrderService) -> None:
    order = await accepted(service)
    events = one_of_each(order)
    await service.publish(*(events[each] for each in SHIPPED))
    read = await service.read(str(order.id))
    shipped, confirmed = events["SHIPPED"], events["PAYMENT_CONFIRMED"]
    assert isinstance(shipped, Shipped)
    assert isinstance(confirmed, PaymentConfirmed)
    assert (read["status"], read["reason"]) == ("SHIPPED", None)
    assert read["invoice"] == {"number": "2026-000001"}
    assert read["payment"] == {"id": confirmed.data.payment.id, "status": "captured"}
    assert read["shipment"] == {"carrier": "Simulated Post", "tracking_number": "RR473124829BR"}
    assert [line["type"] for line in read["timeline"]] == ["ORDER_CREATED", *SHIPPED]
    _, invoiced, paid, sent = read["timeline"]
    assert invoiced["event_id"] == str(events["INVOICE_CREATED"].id)
    assert invoiced["detail"] == {
        "number": "2026-000001",
        "issued_at": "2026-11-22T12:00:00Z",
        "issued_on": "2026-11-22",
    }
    assert paid["detail"]["amount"] == read["total"] == "46.57"
    assert sent["detail"]["tracking_number"] == "RR473124829BR"


async def test_a_declined_order_shows_the_reason(service: OrderService) -> None:
    order = await accepted(service)
    events = one_of_each(order)
    await service.publish(*(events[each] for each in FAILED))
    read = await service.read(str(order.id))
    reason = {"code": "card_declined", "message": "The card was declined.", "stage": "payment"}
    assert (read["status"], read["reason"]) == ("PAYMENT_FAILED", reason)
    assert read["payment"] == {"id": None, "status": "failed"}
    assert read["shipment"] is None
    assert read["timeline"][-1]["detail"] == reason


async def test_a_refunded_order_shows_the_reason(service: OrderService) -> None:
    order = await accepted(service)
    events = one_of_each(order)
    await service.publish(*(events[each] for each in REFUNDED))
    read = await service.read(str(order.id))
    assert read["status"] == "PAYMENT_REFUNDED"
    assert read["reason"]["stage"] == "shipment"
    assert read["payment"]["status"] == "refunded"
    assert [line["type"] for line in read["timeline"]] == ["ORDER_CREATED", *REFUNDED]
    assert read["timeline"][-1]["detail"]["amount"] == "46.57"


@pytest.mark.parametrize("seed", range(5))
async def test_events_may_come_in_any_order_and_any_number_of_times(service: OrderService, seed: int) -> None:
    orders = [await accepted(service) for _ in range(3)]
    expected = {}
    deliveries: list[AnyEvent] = []
    for order, journey in zip(orders, (SHIPPED, FAILED, REFUNDED), strict=True):
        events = one_of_each(order)
        expected[str(order.id)] = [str(events[each].id) for each in journey]
        deliveries += [events[each] for each in journey] * 3
    random.Random(seed).shuffle(deliveries)
    for event in deliveries:
        await service.publish(event)
    for order_id, event_ids in expected.items():
        [_, *lines] = (await service.read(order_id))["timeline"]
        assert [line["event_id"] for line in lines] == event_ids


async def test_with_an_emptied_inbox_a_replay_changes_nothing(service: OrderService) -> None:
    order = await accepted(service)
    events = one_of_each(order)
    await service.publish(*(events[each] for each in SHIPPED))
    before = await service.read(str(order.id))
    async with service.transactions() as tx:
        await tx.execute("DELETE FROM inbox")
    await service.publish(*(events[each] for each in reversed(SHIPPED)))
    assert await service.read(str(order.id)) == before


async def test_events_that_contradict_each_other_are_both_kept(service: OrderService) -> None:
    order = await accepted(service)
    await service.publish(one_of_each(order)["SHIPPED"], one_of_each(order)["SHIPPED"])
    read = await service.read(str(order.id))
    assert [line["type"] for line in read["timeline"]] == ["ORDER_CREATED", "SHIPPED", "SHIPPED"]


async def test_an_event_of_an_unknown_order_is_parked_and_its_neighbours_are_recorded(
    service: OrderService,
) -> None:
    orders = [await accepted(service) for _ in range(4)]
    stranger = an_order()
    await service.publish(*(one_of_each(order)["SHIPPED"] for order in [*orders[:2], stranger, *orders[2:]]))
    for order in orders:
        assert (await service.read(str(order.id)))["status"] == "SHIPPED"
    assert (await service.http.get(f"/orders/{stranger.id}")).status_code == 404
    sentence = "The event is about an order that this service never accepted."
    assert await dead(service) == [("SHIPPED", "UnknownOrder", sentence)]


async def test_writing_an_order_again_changes_nothing(service: OrderService) -> None:
    event = order_created()

    async def add(tx: Transaction) -> int:
        return len(await repository.add(tx, [event]))

    async with service.transactions() as tx:
        assert await add(tx) == 1
    async with service.transactions() as tx:
        assert await add(tx) == 0
    assert await service.written() == {"orders": 1, "lines": 1, "keys": 0, "announced": 0}
