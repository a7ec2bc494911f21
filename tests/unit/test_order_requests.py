"""What a request says reaches the order; a request of an earlier version means what it meant then."""

import json
import re
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from events import contracts, envelope
from events.contracts import Address, Customer, Discount, Item, OrderCreated, Shipping
from events.money import format_amount
from sandbox.demo.examples import FOLDER, Example, load
from services.order.requests import NewOrder
from tests.factories import NOON
from tests.order_service import a_new_item, a_new_order, a_rich_order
from tests.pages import ROOT


def placed(body: dict[str, Any]) -> contracts.Placed:
    return NewOrder.model_validate(body).placed(uuid7(), NOON)


def fingerprint(body: dict[str, Any]) -> str:
    return NewOrder.model_validate(body).fingerprint().hex()


def test_an_order_of_version_1_keeps_its_fingerprint() -> None:
    assert fingerprint(a_new_order()) == "67a9023c81f2bb1d4c03a444c00336c4f3edaf6feadbc3a6f6072256ce0f7724"
    full = a_new_order(
        shipping_address=a_new_order()["shipping_address"] | {"line2": "Loja 2", "state": "SP"},
        items=[a_new_item(), a_new_item(sku="TEA", tax_rate="0")],
    )
    assert fingerprint(full) == "efba354b9cecf6a6997d2aa51e06ecb21d179098db404f387dbe675f54eadbaa"


@pytest.mark.parametrize(
    "same",
    [
        {"prices": "net"},
        {"tax_rounding": "line"},
        {"reverse_charge": False},
        {"metadata": {}},
        {"metadata": None},
        {"discount": None},
        {"shipping": None},
        {"billing_address": None},
        {"note": None},
    ],
    ids=str,
)
def test_a_default_that_is_written_out_changes_no_fingerprint(same: dict[str, Any]) -> None:
    assert fingerprint(a_new_order(**same)) == fingerprint(a_new_order())


def test_the_order_of_the_metadata_does_not_matter() -> None:
    there = a_new_order(metadata={"a": "1", "b": "2"})
    back = a_new_order(metadata={"b": "2", "a": "1"})
    assert fingerprint(there) == fingerprint(back) != fingerprint(a_new_order())


@pytest.mark.parametrize("example", load(FOLDER), ids=lambda example: example.name)
def test_the_examples_are_accepted_with_their_totals(example: Example) -> None:
    order = placed(example.order).order
    assert format_amount(order.total, order.currency) == example.total
    given = (example.order.get("prices", "net"), example.order.get("tax_rounding", "line"))
    assert (order.prices, order.tax_rounding) == given


def test_everything_that_a_request_says_reaches_the_event() -> None:
    placement = placed(a_rich_order())
    assert envelope.decode(envelope.messages([OrderCreated.of(placement)])[0].body)[0][0].data == placement
    order = placement.order
    assert order.customer == Customer(
        name="Jonas Weber",
        email="jonas@example.com",
        locale="de-DE",
        company="Weber Kaffee GmbH",
        phone="+49 711 1234567",
        tax_id="DE136695976",
    )
    assert order.shipping_address == Address(
        name="Lager Süd",
        company="Weber Kaffee GmbH",
        line1="Königstraße 1",
        city="Stuttgart",
        postal_code="70173",
        country="DE",
    )
    assert order.billing_address == Address(
        company="Weber Kaffee GmbH",
        line1="Friedrichstraße 10",
        city="Berlin",
        postal_code="10117",
        country="DE",
    )
    assert (order.prices, order.tax_rounding, order.reverse_charge) == ("gross", "rate", False)
    assert order.items == (
        Item(
            id="mug",
            sku="MUG-01",
            name="Mug",
            quantity=12,
            unit_price=999,
            discount=Discount(amount=1199, rate="0.1", name="From ten pieces"),
            order_discount=340,
            tax_rate="0.19",
            tax_category="S",
            subtotal=8780,
            tax=1669,
            total=10449,
        ),
        Item(
            id="2",
            sku="BEANS-7",
            name="Coffee beans by weight, in kg",
            quantity=2125,
            quantity_decimals=3,
            unit_price=239999,
            unit_price_decimals=4,
            order_discount=160,
            tax_rate="0.07",
            tax_category="S",
            subtotal=4617,
            tax=323,
            total=4940,
        ),
    )
    assert order.discount == Discount(amount=500, name="Welcome")
    assert order.shipping == Shipping(
        name="Parcel", price=490, tax_rate="0.19", tax_category="S", subtotal=412, tax=78, total=490
    )
    assert (order.subtotal, order.tax, order.total) == (13809, 2070, 15879)
    assert order.note == "Please ring twice."
    assert order.metadata == {"campaign": "spring-7", "channel": "web"}
    assert placement.payment_method == "pm_card_visa"


def test_the_examples_of_the_api_page_cost_what_it_says() -> None:
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "api.md").read_text("utf-8"), re.DOTALL)
    gross, company = (placed(json.loads(block)).order for block in blocks)
    assert (gross.discount, gross.tax, gross.total) == (
        Discount(amount=100, rate="0.1", name="SUMMER10"),
        222,
        1389,
    )
    assert (company.reverse_charge, company.tax, company.total) == (True, 0, 84000)


def test_the_tax_id_is_of_the_country_that_the_invoice_is_addressed_to() -> None:
    body = a_rich_order(billing_address=a_new_order()["shipping_address"])
    body["customer"]["tax_id"] = "529.982.247-25"
    assert placed(body).order.customer.tax_id == "52998224725"
