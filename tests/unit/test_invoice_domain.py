"""The rules of an invoice: invoiceable orders, numbers, and tax."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events import money
from events.contracts import Item
from services.invoice.domain import (
    Invoice,
    NotAnInvoiceNumber,
    NotInvoiceable,
    Number,
    TaxLine,
    check_invoiceable,
)
from tests.factories import NOON, an_item, an_order


def an_invoice(*items: Item, currency: str = "BRL") -> Invoice:
    order = an_order(items=items or (an_item(),), currency=currency)
    return Invoice(number=Number(2026, 1), issued_at=NOON, order=order)


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
        TaxLine(rate="0", net=2500, tax=0),
        TaxLine(rate="0.055", net=999, tax=55),
        TaxLine(rate="0.17", net=4083, tax=695),
        TaxLine(rate="1", net=5, tax=5),
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


@pytest.mark.parametrize(
    "changes",
    [
        {"subtotal": 3979},
        {"tax": 676},
        {"total": 4658},
        {"items": (an_item(total=4656),), "subtotal": 3980, "tax": 677, "total": 4656},
        {"items": (an_item(), an_item()), "subtotal": 3980, "tax": 677, "total": 4657},
    ],
)
def test_an_order_whose_amounts_do_not_add_up_is_not_invoiced(changes: dict[str, Any]) -> None:
    with pytest.raises(NotInvoiceable, match="do not add up"):
        check_invoiceable(an_order(**changes))


def test_an_order_in_an_unknown_currency_is_not_invoiced() -> None:
    with pytest.raises(NotInvoiceable, match="ISO 4217"):
        check_invoiceable(an_order(currency="XTS"))


def test_the_event_of_an_invoice_carries_the_order_and_the_number() -> None:
    invoice = an_invoice()
    event = invoice.created("pm_card_visa")
    assert event.subject == invoice.order.id
    assert event.data.order == invoice.order
    assert event.data.invoice.number == "2026-000001"
    assert event.data.invoice.issued_at == NOON
