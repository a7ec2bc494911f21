"""The rules of an invoice: invoiceable orders, numbers, dates, and tax."""

from dataclasses import replace
from datetime import date, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events import money
from events.contracts import Discount, Item, Order, Seller, Shipping
from services.invoice.domain import (
    EXAMPLE_SELLER,
    Invoice,
    NotAnInvoiceNumber,
    NotInvoiceable,
    Number,
    TaxLine,
    check_invoiceable,
    day_of,
)
from tests.factories import NOON, a_rich_order, an_item, an_order


def an_invoice(*items: Item, **changes: Any) -> Invoice:
    order = an_order(items=items or (an_item(),), **changes)
    return Invoice(Number(2026, 1), NOON, NOON.date(), EXAMPLE_SELLER, order)


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (Number(2026, 1), "2026-000001"),
        (Number(2026, 999_999), "2026-999999"),
        (Number(2026, 1_000_000), "2026-1000000"),
        (Number(2031, 12_345_678), "2031-12345678"),
    ],
)
def test_a_number_is_a_year_and_at_least_six_digits(number: Number, written: str) -> None:
    assert str(number) == written


@given(st.integers(2020, 9999), st.integers(1, 10**17))
def test_every_number_is_read_as_it_was_written(year: int, serial: int) -> None:
    assert Number.parse(str(Number(year, serial))) == Number(year, serial)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026",
        "2026-",
        "2026-1",
        "2026-0000001",
        "0026-000001",
        "26-000001",
        "-2026-000001",
        "2026_000001",
        "2026-00000a",
        "2026-000001 ",
        "2026-000001\n",
        "2026-000001\0",
        "2026-" + "9" * 19,
        "\u0662\u0660\u0662\u0666-000001",  # digits, but not ASCII
        "x" * 10_000,
    ],
)
def test_other_forms_of_a_number_are_refused(text: str) -> None:
    with pytest.raises(NotAnInvoiceNumber):
        Number.parse(text)


def test_taxes_are_summed_by_rate_however_the_rate_is_written() -> None:
    invoice = an_invoice(
        an_item(tax_rate="0.17", subtotal=3980, tax=677, total=4657),
        an_item(sku="PEN", tax_rate="0.170", subtotal=103, tax=18, total=121),
        an_item(sku="BOOK", tax_rate="0", subtotal=2500, tax=0, total=2500),
        an_item(sku="TEA", tax_rate="0.055", subtotal=999, tax=55, total=1054),
        an_item(sku="YACHT", tax_rate="1.0", subtotal=5, tax=5, total=10),
    )
    assert invoice.taxes == [
        TaxLine(category="Z", rate="0", net=2500, tax=0),
        TaxLine(category="S", rate="0.055", net=999, tax=55),
        TaxLine(category="S", rate="0.17", net=4083, tax=695),
        TaxLine(category="S", rate="1", net=5, tax=5),
    ]


@st.composite
def items(draw: st.DrawFn) -> Item:
    quantity, price = draw(st.integers(1, 1000)), draw(st.integers(1, 99_999))
    rate = draw(st.sampled_from(["0", "0.0", "0.055", "0.07", "0.17", "0.170", "0.19", "0.333333", "1"]))
    net = quantity * price
    tax = money.tax_on(net, rate)
    return an_item(quantity=quantity, unit_price=price, tax_rate=rate, subtotal=net, tax=tax, total=net + tax)


@given(st.lists(items(), min_size=1, max_size=20))
def test_the_taxes_of_all_rates_add_up_to_the_invoice(lines: list[Item]) -> None:
    invoice = an_invoice(*lines)
    check_invoiceable(invoice.order)
    assert sum(line.net for line in invoice.taxes) == invoice.order.subtotal
    assert sum(line.tax for line in invoice.taxes) == invoice.order.tax
    assert len({line.rate for line in invoice.taxes}) == len(invoice.taxes)


def test_the_shipping_is_taxed_among_the_lines() -> None:
    shipping = Shipping(price=500, tax_rate="0.170", subtotal=500, tax=85, total=585)
    assert an_invoice(shipping=shipping).taxes == [TaxLine(category="S", rate="0.17", net=4480, tax=762)]


def untaxed(**changes: Any) -> Item:
    return an_item(tax_rate="0", subtotal=3980, tax=0, total=3980, **changes)


def test_an_invoice_says_once_for_each_category_why_there_is_no_tax() -> None:
    invoice = an_invoice(
        untaxed(tax_category="Z"),
        untaxed(tax_category="AE"),
        untaxed(tax_category="K", exemption_reason="Article 138"),
        untaxed(tax_category="K", exemption_reason="Article 138"),
        untaxed(tax_category="G"),
        untaxed(tax_category="O"),
        untaxed(tax_category="E", exemption_reason="Medical care"),
        untaxed(tax_category="E", exemption_reason="Education"),
        an_item(),
    )
    assert {line.category: line.notices for line in invoice.taxes} == {
        "AE": ("Reverse charge: the customer owes the tax.",),
        "E": ("Medical care", "Education"),
        "G": ("Export: exempt from tax.",),
        "K": ("Intra-Community supply: exempt from tax.", "Article 138"),
        "O": ("Outside the scope of tax.",),
        "S": (),
        "Z": (),
    }
    assert invoice.notices == [notice for line in invoice.taxes for notice in line.notices]


RICH = an_order(
    currency="EUR",
    prices="gross",
    tax_rounding="rate",
    items=(
        an_item(  # 3 at 9.99, less 10 %
            quantity=3,
            unit_price=999,
            discount=Discount(amount=300, rate="0.1"),
            order_discount=500,
            tax_rate="0.19",
            subtotal=1846,
            tax=351,
            total=2197,
        ),
        an_item(  # 12.5 at 0.0345: 0.43125
            quantity=125,
            quantity_decimals=1,
            unit_price=345,
            unit_price_decimals=4,
            order_discount=8,
            tax_rate="0.190",
            subtotal=30,
            tax=5,
            total=35,
        ),
    ),
    discount=Discount(amount=508),
    shipping=Shipping(price=595, tax_rate="0.19", subtotal=500, tax=95, total=595),
    subtotal=2376,
    tax=451,
    total=2827,
)
"""Gross prices and both discounts. 19 % are taken out of 28.27 once: 4.51. The parts' own taxes are 4.52."""


def changed_item(order: Order, **changes: Any) -> tuple[Item, ...]:
    first, *others = order.items
    return (msgspec.structs.replace(first, **changes), *others)


def test_an_order_with_everything_is_invoiced() -> None:
    check_invoiceable(a_rich_order())


def test_tax_that_is_rounded_per_rate_is_another_than_that_of_the_lines() -> None:
    check_invoiceable(RICH)
    with pytest.raises(NotInvoiceable, match="do not add up"):
        check_invoiceable(msgspec.structs.replace(RICH, tax_rounding="line"))


@pytest.mark.parametrize(
    ("order", "changes"),
    [
        (an_order(), {"subtotal": 3979}),
        (an_order(), {"tax": 676}),
        (an_order(), {"total": 4658}),
        (an_order(), {"items": (an_item(total=4656),), "total": 4656}),
        (an_order(), {"items": (an_item(), an_item())}),
        (an_order(), {"items": (an_item(quantity=1),)}),
        (an_order(), {"items": (an_item(unit_price=1991),)}),
        (an_order(), {"items": (an_item(tax=676, total=4656),), "tax": 676, "total": 4656}),
        (an_order(), {"items": (an_item(discount=Discount(amount=1)),)}),
        (an_order(), {"discount": Discount(amount=1)}),
        (an_order(), {"shipping": Shipping(price=1, subtotal=1, tax=0, total=1)}),
        (an_order(), {"prices": "gross"}),
        (RICH, {"prices": "net"}),
        (RICH, {"discount": Discount(amount=507)}),
        (RICH, {"discount": None}),
        (RICH, {"items": changed_item(RICH, order_discount=501)}),
        (RICH, {"items": changed_item(RICH, discount=Discount(amount=301))}),
        (RICH, {"items": changed_item(RICH, tax=352, subtotal=1845), "tax": 452, "subtotal": 2375}),
        (RICH, {"items": changed_item(RICH, tax_rate="0.07")}),
        (RICH, {"shipping": Shipping(price=594, tax_rate="0.19", subtotal=500, tax=95, total=595)}),
        (RICH, {"shipping": None}),
    ],
)
def test_an_order_whose_amounts_do_not_add_up_is_not_invoiced(order: Order, changes: dict[str, Any]) -> None:
    with pytest.raises(NotInvoiceable, match="do not add up"):
        check_invoiceable(msgspec.structs.replace(order, **changes))


def test_an_order_over_nothing_is_invoiced() -> None:
    free = an_item(discount=Discount(amount=3980, rate="1"), subtotal=0, tax=0, total=0)
    check_invoiceable(an_order(items=(free,)))


def test_an_order_in_an_unknown_currency_is_not_invoiced() -> None:
    with pytest.raises(NotInvoiceable, match="ISO 4217"):
        check_invoiceable(an_order(currency="XTS"))


@pytest.mark.parametrize(
    ("zone", "moment", "day"),
    [
        ("UTC", "2026-12-31T23:30:00+00:00", date(2026, 12, 31)),
        ("Pacific/Auckland", "2026-12-31T23:30:00+00:00", date(2027, 1, 1)),
        ("America/Sao_Paulo", "2027-01-01T01:00:00+00:00", date(2026, 12, 31)),
    ],
)
def test_the_day_is_that_of_the_sellers_calendar(zone: str, moment: str, day: date) -> None:
    assert day_of(datetime.fromisoformat(moment), Seller(name="Shop", time_zone=zone)) == day


def test_the_event_of_an_invoice_carries_the_order_the_number_the_seller_and_the_day() -> None:
    seller = Seller(name="Shop", time_zone="Pacific/Auckland")
    invoice = replace(an_invoice(), seller=seller, issued_on=date(2026, 11, 23))
    event = invoice.created("pm_card_visa")
    assert event.subject == invoice.order.id
    assert event.data.order == invoice.order
    assert event.data.invoice.number == "2026-000001"
    assert event.data.invoice.issued_at == NOON
    assert event.data.invoice.issued_on == date(2026, 11, 23)
    assert event.data.invoice.seller == seller
