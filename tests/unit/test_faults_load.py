"""The load of the fault runs places orders that have to be accepted, of every kind."""

import json
import random
from datetime import UTC, datetime

from uuid_utils.compat import uuid7

from events import limits, money
from events.contracts import Order
from services.order.requests import NewOrder
from tests.faults.load import FREE, RICH, OrderGenerator, PlannedOrder

ORDERS = 3000


def planned() -> list[PlannedOrder]:
    generator = OrderGenerator(random.Random(1), "test")
    return [generator.next() for _ in range(ORDERS)]


def accepted(order: PlannedOrder) -> Order:
    return NewOrder.model_validate_json(order.body).placed(uuid7(), datetime.now(UTC)).order


def test_the_same_seed_gives_the_same_orders() -> None:
    assert planned() == planned()


def test_every_order_is_accepted_and_can_be_charged() -> None:
    for order in map(accepted, planned()):
        assert order.total == 0 or limits.obstacle(order.total, order.currency) is None


def test_a_share_of_them_says_all_that_an_order_can_say() -> None:
    orders = [accepted(order) for order in planned()]
    rich = [order for order in orders if order.shipping]
    assert abs(len(rich) / ORDERS - RICH) < 0.05
    assert {order.prices for order in rich} == {"net", "gross"}
    assert {order.tax_rounding for order in rich} == {"line", "rate"}
    assert {money.exponent(order.currency) for order in rich} == {0, 2, 3}
    assert any(item.quantity_decimals for order in rich for item in order.items)
    assert any(item.unit_price_decimals for order in rich for item in order.items)
    assert any(item.discount for order in rich for item in order.items)
    assert any(order.discount for order in rich)


def test_a_small_share_costs_nothing_and_is_never_declined() -> None:
    free = [order for order in planned() if accepted(order).total == 0]
    assert 0 < len(free) / ORDERS < 2 * FREE
    assert {order.expected for order in free} == {"SHIPPED", "PAYMENT_REFUNDED"}
    assert {"payment_method" in json.loads(order.body) for order in free} == {True, False}
