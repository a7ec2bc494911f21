"""Money: exact, in the currency's own decimals, rounded half up."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.money import (
    EXPONENTS,
    MAX_AMOUNT,
    InvalidAmount,
    UnknownCurrency,
    exponent,
    format_amount,
    format_price,
    format_quantity,
    parse_amount,
    tax_on,
)

CURRENCIES = st.sampled_from(sorted(EXPONENTS))
AMOUNTS = st.integers(min_value=0, max_value=MAX_AMOUNT)


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("19.90", "BRL", 1990),
        ("0.01", "EUR", 1),
        ("0.00", "EUR", 0),
        ("0", "JPY", 0),
        ("1990", "JPY", 1990),
        ("19.905", "KWD", 19905),
        ("999999999.99", "USD", MAX_AMOUNT),
    ],
)
def test_an_amount_is_read_and_written_in_the_currencys_decimals(
    text: str, currency: str, minor: int
) -> None:
    assert parse_amount(text, currency) == minor
    assert format_amount(minor, currency) == text


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        ("5", "EUR"),
        ("5.0", "EUR"),
        ("5.000", "EUR"),
        ("5.00", "JPY"),
        ("5.00", "KWD"),
        ("-5.00", "EUR"),
        ("+5.00", "EUR"),
        ("05.00", "EUR"),
        (".50", "EUR"),
        ("5.", "JPY"),
        ("5,00", "EUR"),
        ("1e3", "JPY"),
        ("5.00\n", "EUR"),
        (" 5.00", "EUR"),
        ("\u0665.\u0660\u0660", "EUR"),
        ("1_000", "JPY"),
        ("", "JPY"),
        ("NaN", "JPY"),
    ],
)
def test_text_other_than_a_plain_decimal_with_the_right_decimals_is_refused(text: str, currency: str) -> None:
    with pytest.raises(InvalidAmount):
        parse_amount(text, currency)


@pytest.mark.parametrize("currency", ["", "eur", "XXX", "XAU", "EURO", "BTC"])
def test_an_unknown_currency_is_refused(currency: str) -> None:
    with pytest.raises(UnknownCurrency):
        exponent(currency)


@given(AMOUNTS, CURRENCIES)
def test_every_amount_survives_writing_and_reading(minor: int, currency: str) -> None:
    assert parse_amount(format_amount(minor, currency), currency) == minor


@pytest.mark.parametrize(
    ("price", "decimals", "currency", "text"),
    [
        (1990, None, "EUR", "19.90"),
        (345, 4, "EUR", "0.0345"),
        (5, 3, "EUR", "0.005"),
        (1980, None, "JPY", "1980"),
        (19805, 1, "JPY", "1980.5"),
        (199055, 4, "KWD", "19.9055"),
        (0, None, "KWD", "0.000"),
    ],
)
def test_a_unit_price_is_written_with_its_own_decimals_or_the_currencys(
    price: int, decimals: int | None, currency: str, text: str
) -> None:
    assert format_price(price, decimals, currency) == text


@pytest.mark.parametrize(
    ("quantity", "decimals", "text"), [(2, 0, "2"), (125, 3, "0.125"), (15, 1, "1.5"), (100_000, 0, "100000")]
)
def test_a_quantity_is_written_with_its_own_decimals(quantity: int, decimals: int, text: str) -> None:
    assert format_quantity(quantity, decimals) == text


@pytest.mark.parametrize(
    ("net", "rate", "tax"),
    [
        (3980, "0.17", 677),  # 676.6
        (1, "0.5", 1),  # 0.5: half goes up
        (3, "0.5", 2),  # 1.5: up, as to even
        (5, "0.5", 3),  # 2.5: up, where to even would go down
        (250, "0.01", 3),  # 2.5
        (249, "0.01", 2),  # 2.49
        (1999, "0.055", 110),  # 109.945
        (1050, "0.19", 200),  # 199.5
        (999, "0", 0),
        (999, "1", 999),
        (333, "0.333333", 111),  # 110.999889
    ],
)
def test_tax_is_rounded_half_up_to_the_minor_unit(net: int, rate: str, tax: int) -> None:
    assert tax_on(net, rate) == tax


@given(AMOUNTS, st.integers(min_value=0, max_value=10**6))
def test_tax_is_exact_before_it_is_rounded(net: int, millionths: int) -> None:
    rate = str(Decimal(millionths).scaleb(-6))
    exact = net * Fraction(millionths, 10**6)
    assert tax_on(net, rate) == int(exact + Fraction(1, 2))
