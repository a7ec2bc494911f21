"""An order's price: rounded half up per line, in the currency's own decimals."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from events.contracts import NO_POSTAL_CODE, Address, Customer, Order
from events.limits import LIMITS, obstacle
from events.money import EXPONENTS, MAX_AMOUNT, format_amount
from services.order.countries import COUNTRIES, WITHOUT_POSTAL_CODE
from services.order.domain import place
from services.order.pricing import Line
from services.order.refusal import OrderRefused
from services.order.requests import NewOrder
from tests.factories import NOON
from tests.order_service import a_new_order

LIMITED = {"total_too_small", "total_too_large", "total_not_in_steps"}


def line(unit_price: str, quantity: int | str = 1, tax_rate: str = "0", **changes: Any) -> Line:
    """A line. `placed` gives it its place as id."""
    fields: dict[str, Any] = {"id": "", "sku": "MUG-01", "name": "Mug"}
    return Line(quantity=quantity, unit_price=unit_price, tax_rate=tax_rate, **fields | changes)


def placed(currency: str, *lines: Line, **changes: Any) -> Order:
    fields: dict[str, Any] = {
        "reference": None,
        "customer": Customer(name="Ana Souza", email="ana@example.com"),
        "shipping_address": Address(line1="Rua Augusta 1", city="São Paulo", postal_code="1", country="BR"),
        "billing_address": None,
        "currency": currency,
        "prices": "net",
        "tax_rounding": "line",
        "lines": [replace(line, id=line.id or str(place)) for place, line in enumerate(lines, 1)],
        "discount": None,
        "shipping": None,
        "reverse_charge": False,
        "note": None,
        "metadata": {},
        "payment_method": "pm_card_visa",
    }
    return place(uuid7(), NOON, **fields | changes).order


def refused(currency: str, *lines: Line, **changes: Any) -> list[tuple[tuple[str | int, ...], str]]:
    with pytest.raises(OrderRefused) as caught:
        placed(currency, *lines, **changes)
    return [(broken.path, broken.code) for broken in caught.value.broken]


@pytest.mark.parametrize(
    ("currency", "lines", "subtotal", "tax", "total"),
    [
        ("BRL", [line("19.90", 2, "0.17")], 3980, 677, 4657),
        ("EUR", [line("19.90", 2, "0.17"), line("4.99", 3, "0.055")], 5477, 759, 6236),  # 677 + 82
        ("EUR", [line("0.01", 50, "0.01")] * 3, 150, 3, 153),  # 0.5 each goes up; 1.5 in one would make 2
        ("EUR", [line("0.01", 49, "0.01")] * 3, 147, 0, 147),  # 0.49 each goes down; 1.47 in one would make 1
        ("EUR", [line("10.50", 1, "0.19"), line("0.05", 1, "0.5")], 1055, 203, 1258),  # 199.5, 2.5
        ("JPY", [line("1980", 1, "0.1"), line("105", 1, "0.1")], 2085, 209, 2294),  # 198, 10.5
        ("KWD", [line("19.905", 3, "0.053")], 59715, 3165, 62880),  # 3164.895
        ("BHD", [line("0.045", 1, "0.1"), line("0.010")], 55, 5, 60),  # 4.5
        ("USD", [line("999999.99")], 99_999_999, 0, 99_999_999),
        ("IDR", [line("999999999.99")], MAX_AMOUNT, 0, MAX_AMOUNT),
        ("EUR", [line("0.25", 2)], 50, 0, 50),
        ("USD", [line("0.00"), line("1.00")], 100, 0, 100),
    ],
)
def test_an_orders_totals_are_the_sums_of_its_lines(
    currency: str, lines: list[Line], subtotal: int, tax: int, total: int
) -> None:
    order = placed(currency, *lines)
    assert (order.subtotal, order.tax, order.total) == (subtotal, tax, total)


@given(st.data())
def test_every_line_and_every_order_balances(data: st.DataObject) -> None:
    currency = data.draw(st.sampled_from(sorted(LIMITS)))
    prices = data.draw(st.lists(st.integers(1, 10**5), min_size=1, max_size=20))
    lines = [
        line(
            format_amount(price, currency),
            data.draw(st.integers(1, 10)),
            data.draw(st.sampled_from(["0", "0.055", "0.17", "0.19", "0.333333", "1"])),
            sku=f"SKU-{number}",
        )
        for number, price in enumerate(prices)
    ]
    try:
        order = placed(currency, *lines)
    except OrderRefused as refusal:
        assert {broken.code for broken in refusal.broken} <= LIMITED
        return
    assert obstacle(order.total, currency) is None
    assert all(item.total == item.subtotal + item.tax for item in order.items)
    assert order.subtotal == sum(item.subtotal for item in order.items)
    assert order.tax == sum(item.tax for item in order.items)
    assert order.total == order.subtotal + order.tax == sum(item.total for item in order.items)


def test_a_price_must_have_the_currencys_decimals() -> None:
    lines = [line("5.0"), line("5.00"), line("5")]
    assert refused("EUR", *lines) == [
        (("items", 0, "unit_price"), "wrong_decimals"),
        (("items", 2, "unit_price"), "wrong_decimals"),
    ]


def test_one_sku_may_stand_in_several_lines_at_one_price_or_at_several() -> None:
    assert placed("EUR", line("5.00"), line("5.00", 3)).total == 2000
    assert placed("EUR", line("10.00"), line("12.00"), line("0.00")).total == 2200


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([line("0.00", 5, "0.17")], "total_zero"),
        ([line("999999999.99"), line("0.01")], "total_too_large"),
        ([line("999999999.99", 1, "0.000001")], "total_too_large"),
        ([line("99999999999.99", 100_000, "0.999999")], "total_too_large"),
    ],
)
def test_a_total_of_zero_or_beyond_the_limit_is_refused(lines: list[Line], code: str) -> None:
    assert refused("EUR", *lines) == [(("items",), code)]


@pytest.mark.parametrize(
    ("currency", "price", "code", "words"),
    [
        ("EUR", "0.20", "total_too_small", "below 0.50 EUR"),
        ("EUR", "1404000.00", "total_too_large", "over 999999.99 EUR"),
        ("KWD", "5.124", "total_not_in_steps", "a multiple of 0.010 KWD"),
        ("JPY", "49", "total_too_small", "below 50 JPY"),
    ],
)
def test_a_total_that_can_not_be_charged_is_refused_with_the_limit(
    currency: str, price: str, code: str, words: str
) -> None:
    with pytest.raises(OrderRefused) as caught:
        placed(currency, line(price))
    [broken] = caught.value.broken
    assert (broken.path, broken.code) == (("items",), code)
    assert words in broken.message


def test_a_currency_that_can_not_be_charged_is_refused() -> None:
    for currency in sorted(EXPONENTS.keys() - LIMITS.keys()):
        price = format_amount(100_000, currency)
        assert refused(currency, line(price)) == [(("currency",), "currency_unsupported")]
    assert refused("IRR", line("0.00")) == [
        (("items",), "total_zero"),
        (("currency",), "currency_unsupported"),
    ]


def test_every_broken_rule_is_named_at_once() -> None:
    nowhere = Address(line1="1", city="Nowhere", postal_code="0", country="XX")
    assert refused("XXL", line("5.00"), shipping_address=nowhere) == [
        (("shipping_address", "country"), "unknown_country"),
        (("currency",), "unknown_currency"),
    ]


def test_every_country_can_be_shipped_to() -> None:
    assert len(COUNTRIES) == 250
    assert {"AQ", "AX", "BR", "GB", "SS", "XK", "ZW"} <= COUNTRIES
    assert COUNTRIES.isdisjoint({"EU", "UK", "AN", "ZZ"})


@pytest.mark.parametrize("country", ["AE", "HK", "IE", "PA", "QA"])
def test_a_country_without_postal_codes_needs_none(country: str) -> None:
    address = Address(line1="1 Peak Road", city="Central", postal_code=NO_POSTAL_CODE, country=country)
    assert placed("EUR", line("5.00"), shipping_address=address).shipping_address.shown_postal_code is None


@pytest.mark.parametrize("given", [{}, {"postal_code": None}, {"postal_code": "-"}])
def test_events_always_carry_a_postal_code_for_older_readers(given: dict[str, str | None]) -> None:
    address = {"line1": "1 Peak Road", "city": "Central", "country": "HK"} | given
    new = NewOrder.model_validate(a_new_order(shipping_address=address))
    assert new.placed(uuid7(), NOON).order.shipping_address.postal_code == "-"


@pytest.mark.parametrize("country", ["BR", "DE", "GB", "IN", "JP", "US", "XK"])
def test_a_country_with_postal_codes_needs_one(country: str) -> None:
    address = Address(line1="1", city="Somewhere", postal_code=NO_POSTAL_CODE, country=country)
    assert refused("EUR", line("5.00"), shipping_address=address) == [
        (("shipping_address", "postal_code"), "required")
    ]


def test_countries_without_postal_codes_are_countries() -> None:
    assert WITHOUT_POSTAL_CODE < COUNTRIES
