"""What an order costs, and the rules that its prices keep."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from events import contracts, money
from events.contracts import NO_POSTAL_CODE, Address, Customer, Discount, Order
from events.countries import COUNTRIES, WITHOUT_POSTAL_CODE
from events.limits import LIMITS, obstacle
from events.money import EXPONENTS, MAX_AMOUNT, format_amount
from services.order.domain import place
from services.order.pricing import GivenDiscount, GivenShipping, Line
from services.order.refusal import OrderRefused
from services.order.requests import NewOrder
from tests.factories import NOON
from tests.order_service import a_new_order

LIMITED = {"total_too_small", "total_too_large", "total_not_in_steps"}


def line(unit_price: str, quantity: int | str = 1, tax_rate: str = "0", **changes: Any) -> Line:
    fields: dict[str, Any] = {"id": "", "sku": "MUG-01", "name": "Mug"}
    return Line(quantity=quantity, unit_price=unit_price, tax_rate=tax_rate, **fields | changes)


def arguments(currency: str, *lines: Line, **changes: Any) -> dict[str, Any]:
    """An order of these lines; a line without an id has its place."""
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
    return fields | changes


def placed(currency: str, *lines: Line, **changes: Any) -> Order:
    return place(uuid7(), NOON, **arguments(currency, *lines, **changes)).order


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


def test_a_unit_price_has_the_currencys_decimals_up_to_four() -> None:
    lines = [line("5.0"), line("5.00"), line("5"), line("5.0000"), line("5.00000")]
    assert refused("EUR", *lines) == [
        (("items", 0, "unit_price"), "wrong_decimals"),
        (("items", 2, "unit_price"), "wrong_decimals"),
        (("items", 4, "unit_price"), "wrong_decimals"),
    ]
    assert refused("KWD", line("5.00")) == [(("items", 0, "unit_price"), "wrong_decimals")]
    assert placed("JPY", line("50.5", 2)).total == 101


def test_one_sku_may_stand_in_several_lines_at_one_price_or_at_several() -> None:
    assert placed("EUR", line("5.00"), line("5.00", 3)).total == 2000
    assert placed("EUR", line("10.00"), line("12.00"), line("0.00")).total == 2200


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([line("999999999.99"), line("0.01")], "total_too_large"),
        ([line("999999999.99", 1, "0.000001")], "total_too_large"),
        ([line("99999999999.99", 100_000, "0.999999")], "total_too_large"),
    ],
)
def test_a_total_beyond_the_limit_is_refused(lines: list[Line], code: str) -> None:
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


def test_every_broken_rule_is_named_at_once() -> None:
    nowhere = Address(line1="1", city="Nowhere", postal_code="0", country="XX")
    assert refused("XXL", line("5.00"), shipping_address=nowhere) == [
        (("shipping_address", "country"), "unknown_country"),
        (("currency",), "unknown_currency"),
    ]


# Three invoices, worked out by hand


def amounts(order: Order) -> list[tuple[int, int, int]]:
    """Subtotal, tax and total of each line, then of the shipping."""
    parts = [*order.items, *([order.shipping] if order.shipping else [])]
    return [(part.subtotal, part.tax, part.total) for part in parts]


def test_tax_is_taken_out_of_a_gross_price() -> None:
    """9.99 with 19 %: the tax is 999 * 19 / 119 = 159.50 cents, up to 1.60. The rest is 8.39."""
    order = placed("EUR", line("9.99", 1, "0.19"), prices="gross")
    assert amounts(order) == [(839, 160, 999)]


def test_an_invoice_with_gross_prices_and_discounts() -> None:
    """Gross prices, tax per line, 10 % off one line, 5.00 EUR off the order, with shipping.

    line      price                      off     left   share of 5.00             total
    Mug       9.99 * 1       =  9.99       -     9.99   500 *  999 / 3649 = 136.9 -> 1.37    8.62
    Tea       31.99 * 0.125  =  4.00       -     4.00   500 *  400 / 3649 =  54.8 -> 0.55    3.45
              (3.99875, up)
    Book      12.50 * 2      = 25.00    2.50    22.50   500 * 2250 / 3649 = 308.3 -> 3.08   19.42
    sum                                         36.49   136 + 54 + 308 = 498: two more, to  31.49
                                                        the remainders .9 and .8

    line      total    tax                                    subtotal
    Mug        8.62     862 * 19 / 119 = 137.6 -> 1.38            7.24
    Tea        3.45     345 *  7 / 107 =  22.6 -> 0.23            3.22
    Book      19.42    1942 *  7 / 107 = 127.0 -> 1.27           18.15
    Shipping   4.90     490 * 19 / 119 =  78.2 -> 0.78            4.12
    sum       36.39                               3.66           32.73
    """
    order = placed(
        "EUR",
        line("9.99", 1, "0.19"),
        line("31.99", "0.125", "0.07"),
        line("12.50", 2, "0.07", discount=GivenDiscount(None, "0.1", None)),
        prices="gross",
        discount=GivenDiscount("5.00", None, "WELCOME"),
        shipping=GivenShipping("Parcel", "4.90", "0.19"),
    )
    assert amounts(order) == [(724, 138, 862), (322, 23, 345), (1815, 127, 1942), (412, 78, 490)]
    assert [item.order_discount for item in order.items] == [137, 55, 308]
    assert order.items[2].discount == Discount(amount=250, rate="0.1")
    assert order.discount == Discount(amount=500, name="WELCOME")
    assert (order.subtotal, order.tax, order.total) == (3273, 366, 3639)


def test_an_invoice_with_tax_rounded_per_rate() -> None:
    """Net prices, tax per rate, a price of a fraction of a cent, with shipping.

    line      subtotal                 19 %: exact tax   share of 11.29
    Screws    0.0345 * 1000 = 34.50      6.5550          655.29 -> 6.55
    Mug       19.99 * 1     = 19.99      3.7981          379.69 -> 3.80 (the largest remainder)
    Shipping                   4.95      0.9405           94.02 -> 0.94
    sum                       59.44     11.2936 -> 11.29

    line      subtotal                  7 %: exact tax   share of 1.11
    Tea       3.35 * 1      =  3.35      0.2345           23.53 -> 0.24 (the largest remainder)
    Book      4.15 * 3      = 12.45      0.8715           87.47 -> 0.87
    sum                       15.80      1.1060 -> 1.11

    Per line, the taxes would be 6.56, 3.80, 0.94, 0.23 and 0.87: one cent more, and one less.
    """
    lines = [line("0.0345", 1000, "0.19"), line("19.99", 1, "0.19")]
    lines += [line("3.35", 1, "0.07"), line("4.15", 3, "0.070")]
    shipping = GivenShipping("Shipping", "4.95", "0.19")
    order = placed("EUR", *lines, shipping=shipping, tax_rounding="rate")
    assert amounts(order) == [
        (3450, 655, 4105),
        (1999, 380, 2379),
        (335, 24, 359),
        (1245, 87, 1332),
        (495, 94, 589),
    ]
    assert (order.subtotal, order.tax, order.total) == (7524, 1240, 8764)
    per_line = placed("EUR", *lines, shipping=shipping)
    assert [tax for _, tax, _ in amounts(per_line)] == [656, 380, 23, 87, 94]


def test_an_invoice_with_three_decimals_and_a_line_that_is_exempt() -> None:
    """Net prices in KWD, tax per line, 0.715 off one line, 2.5 % off the order, with shipping.

    line      price                           off      left    share of 2.191              subtotal
    Lamp      19.905 * 3 = 59.715           0.715    59.000    1474.97 -> 1.475              57.525
    Rope      1.2345 * 7 = 8.6415 -> 8.642      -     8.642     216.05 -> 0.216               8.426
    Course    20.000 * 1 = 20.000               -    20.000     499.99 -> 0.500              19.500
    sum                                              87.642 * 0.025 = 2.19105 -> 2.191       85.451

    line      subtotal    tax                                        total
    Lamp        57.525    57.525 * 0.053 = 3.048825 -> 3.049        60.574
    Rope         8.426     8.426 * 0.053 = 0.446578 -> 0.447         8.873
    Course      19.500                                0.000         19.500
    Shipping     1.513     1.513 * 0.053 = 0.080189 -> 0.080         1.593
    sum         86.964                                3.576         90.540
    """
    order = placed(
        "KWD",
        line("19.905", 3, "0.053", discount=GivenDiscount("0.715", None, None)),
        line("1.2345", 7, "0.053"),
        line("20.000", tax_category="E", exemption_reason="Education"),
        discount=GivenDiscount(None, "0.025", None),
        shipping=GivenShipping("Shipping", "1.513", "0.053"),
    )
    assert amounts(order) == [
        (57525, 3049, 60574),
        (8426, 447, 8873),
        (19500, 0, 19500),
        (1513, 80, 1593),
    ]
    assert [item.order_discount for item in order.items] == [1475, 216, 500]
    assert order.discount == Discount(amount=2191, rate="0.025")
    assert (order.subtotal, order.tax, order.total) == (86964, 3576, 90540)


# A total of 0


def test_a_total_of_zero_is_an_order_like_any_other() -> None:
    free = GivenDiscount(None, "1", "GIFT")
    for currency, price in [("EUR", "19.90"), ("KWD", "19.905"), ("IRR", "5.00")]:
        order = placed(currency, line(price, 2, "0.17"), discount=free, payment_method=None)
        assert (order.subtotal, order.tax, order.total) == (0, 0, 0)
    assert placed("EUR", line("0.00", 5, "0.17")).total == 0


def test_a_total_of_zero_keeps_no_payment_method() -> None:
    given = arguments("EUR", line("0.00"))
    assert given["payment_method"]
    assert place(uuid7(), NOON, **given).payment_method is None


def test_any_other_total_needs_a_payment_method() -> None:
    assert refused("EUR", line("5.00"), payment_method=None) == [(("payment_method",), "required")]


# Rules


def rules(**changes: Any) -> list[tuple[tuple[str | int, ...], str]]:
    """The rules that one line breaks which is changed in this way."""
    return refused("EUR", line(**({"unit_price": "5.00"} | changes)))


@pytest.mark.parametrize(
    ("quantity", "code"),
    [
        (0, "too_small"),
        (-1, "too_small"),
        ("0.000", "too_small"),
        (100_001, "too_large"),
        ("100000.001", "too_large"),
        ("1.0000", "wrong_decimals"),
        ("1,5", "wrong_decimals"),
        ("-1", "wrong_decimals"),
    ],
)
def test_a_quantity_is_over_zero_with_up_to_three_decimals(quantity: int | str, code: str) -> None:
    assert rules(quantity=quantity) == [(("items", 0, "quantity"), code)]


@pytest.mark.parametrize(
    ("discount", "field", "code"),
    [
        (GivenDiscount(None, None, "GIFT"), [], "amount_or_rate"),
        (GivenDiscount("1.00", "0.1", None), [], "amount_or_rate"),
        (GivenDiscount("1.0", None, None), ["amount"], "wrong_decimals"),
        (GivenDiscount("5.01", None, None), ["amount"], "discount_too_large"),
    ],
)
def test_a_discount_is_a_part_of_what_it_is_on(discount: GivenDiscount, field: list[str], code: str) -> None:
    assert rules(discount=discount) == [(("items", 0, "discount", *field), code)]
    assert refused("EUR", line("5.00"), discount=discount) == [(("discount", *field), code)]


def test_a_discount_on_the_order_is_at_most_what_the_discounts_on_lines_leave() -> None:
    lines = [line("5.00", discount=GivenDiscount("1.00", None, None)), line("2.00")]
    assert placed("EUR", *lines, discount=GivenDiscount("6.00", None, None)).total == 0
    shipping = GivenShipping("Shipping", "9.00", "0")
    assert refused("EUR", *lines, discount=GivenDiscount("6.01", None, None), shipping=shipping) == [
        (("discount", "amount"), "discount_too_large")
    ]


def test_the_form_of_a_discount_is_checked_where_its_price_can_not_be_read() -> None:
    wrong = GivenDiscount("1", None, None)
    assert refused("EUR", line("5", discount=wrong), line("5.00"), discount=wrong) == [
        (("items", 0, "unit_price"), "wrong_decimals"),
        (("items", 0, "discount", "amount"), "wrong_decimals"),
        (("discount", "amount"), "wrong_decimals"),
    ]


def test_an_id_names_one_line_and_never_the_shipping() -> None:
    lines = [line("5.00", id="a"), line("5.00", id="a"), line("5.00", id="shipping"), line("5.00", id="A")]
    assert refused("EUR", *lines) == [
        (("items", 1, "id"), "duplicate_line_id"),
        (("items", 2, "id"), "reserved_line_id"),
    ]


@pytest.mark.parametrize(
    ("tax", "broken"),
    [
        ({"tax_rate": "0.17", "tax_category": "S"}, None),
        ({"tax_rate": "0", "tax_category": "S"}, ("tax_category", "wrong_tax_category")),
        ({"tax_rate": "0.000", "tax_category": "Z"}, None),
        ({"tax_rate": "0.17", "tax_category": "Z"}, ("tax_category", "wrong_tax_category")),
        ({"tax_rate": "0", "tax_category": "E", "exemption_reason": "Education"}, None),
        ({"tax_rate": "0", "tax_category": "E"}, ("exemption_reason", "required")),
        ({"tax_rate": "0", "tax_category": "K"}, None),
        ({"tax_rate": "0", "tax_category": "G", "exemption_reason": "Export"}, None),
        ({"tax_rate": "0.17", "tax_category": "O"}, ("tax_category", "wrong_tax_category")),
        ({"tax_rate": "0", "tax_category": "AE"}, ("tax_category", "wrong_tax_category")),
        ({"tax_rate": "0.17", "exemption_reason": "x"}, ("exemption_reason", "needless_exemption_reason")),
        ({"tax_rate": "0", "exemption_reason": "x"}, ("exemption_reason", "needless_exemption_reason")),
    ],
)
def test_a_tax_category_goes_with_its_rate_and_its_reason(
    tax: dict[str, Any], broken: tuple[str, str] | None
) -> None:
    shipping = GivenShipping("Shipping", "1.00", **tax)
    if broken is None:
        order = placed("EUR", line("5.00", **tax), shipping=shipping)
        assert order.shipping
        assert order.items[0].tax_category == order.shipping.tax_category == tax["tax_category"]
        return
    field, code = broken
    assert rules(**tax) == [(("items", 0, field), code)]
    assert refused("EUR", line("5.00"), shipping=shipping) == [(("shipping", field), code)]


def test_without_a_category_the_rate_tells_it() -> None:
    order = placed("EUR", line("5.00", 1, "0.07"), line("5.00"))
    assert [item.tax_category for item in order.items] == ["S", "Z"]


COMPANY = Customer(name="Ana Souza", email="ana@example.com", tax_id="DE136695976")


def test_with_reverse_charge_every_line_and_the_shipping_are_without_tax() -> None:
    shipping = GivenShipping("Shipping", "1.00", "0")
    lines = [line("5.00"), line("5.00", tax_category="AE", exemption_reason="Article 196")]
    order = placed("EUR", *lines, shipping=shipping, reverse_charge=True, customer=COMPANY)
    assert order.shipping
    assert [*(item.tax_category for item in order.items), order.shipping.tax_category] == ["AE"] * 3
    assert (order.subtotal, order.tax, order.reverse_charge) == (1100, 0, True)


def test_reverse_charge_needs_a_tax_id_and_takes_no_rate_and_no_other_category() -> None:
    shipping = GivenShipping("Shipping", "1.00", "0.19")
    lines = [line("5.00", 1, "0.07"), line("5.00", tax_category="K")]
    assert refused("EUR", *lines, shipping=shipping, reverse_charge=True) == [
        (("customer", "tax_id"), "required"),
        (("items", 0, "tax_rate"), "rate_not_zero"),
        (("items", 1, "tax_category"), "wrong_tax_category"),
        (("shipping", "tax_rate"), "rate_not_zero"),
    ]


# Bounds

FREE = GivenDiscount(None, "1", None)


@pytest.mark.parametrize(
    ("given", "discount", "broken"),
    [
        ([line("999999999.99", discount=FREE)], None, None),
        ([line("999999999.99")], FREE, None),
        ([line("1000000000.00", discount=FREE)], None, (("items", 0, "discount"), "price_too_large")),
        ([line("999999999.99"), line("0.01")], FREE, (("discount",), "price_too_large")),
        ([line("999999999.9999", "0.001")], None, None),
        ([line("1000000000.0001", "0.001")], None, (("items", 0, "unit_price"), "too_large")),
        ([line("999999999999.9999", 100_000)], None, (("items",), "total_too_large")),
        ([line("0.0001", "0.001")] * 100, None, None),
    ],
)
def test_what_is_accepted_fits_into_its_event(
    given: list[Line], discount: GivenDiscount | None, broken: tuple[tuple[str | int, ...], str] | None
) -> None:
    if broken:
        assert refused("IDR", *given, discount=discount) == [broken]
        return
    order = placed("IDR", *given, discount=discount)
    assert msgspec.json.decode(msgspec.json.encode(order), type=Order) == order


def test_the_bounds_are_those_of_the_contracts() -> None:
    largest = {
        contracts.Amount: money.MAX_AMOUNT,
        contracts.UnitPrice: money.MAX_UNIT_PRICE,
        contracts.Quantity: money.MAX_QUANTITY * 10**money.QUANTITY_DECIMALS,
    }
    for bounded, value in largest.items():
        assert msgspec.convert(value, bounded) == value
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(value + 1, bounded)


# Countries


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
