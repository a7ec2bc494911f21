"""Prices against an oracle: the same rules in exact fractions, apart from the product's arithmetic."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from math import floor
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from events import money
from events.contracts import Item, Prices, Shipping, TaxRounding
from services.order import pricing, reading
from services.order.pricing import GivenDiscount, GivenShipping, Line, Priced, Terms
from services.order.refusal import BrokenRule

CURRENCIES: Final = {"JPY": 0, "EUR": 2, "KWD": 3}
"""One of each number of decimals."""
RATES: Final = st.sampled_from(["0", "0.055", "0.07", "0.070", "0.19", "0.333333", "1"])


# The oracle


@dataclass
class Row:
    """What the oracle says of a line, or of the shipping."""

    rate: Fraction
    amount: Fraction
    """What is charged for it, in the terms of the prices."""
    tax: Fraction = Fraction(0)


def exact(text: str | int) -> Fraction:
    return Fraction(Decimal(text))


def half_up(value: Fraction) -> Fraction:
    return Fraction(floor(value + Fraction(1, 2)))


def shared(whole: Fraction, weights: Sequence[Fraction]) -> list[Fraction]:
    """One unit at a time, to the share that is furthest below its exact value."""
    if not whole:
        return [Fraction(0) for _ in weights]
    targets = [whole * weight / sum(weights) for weight in weights]
    shares = [Fraction(int(target)) for target in targets]
    while sum(shares) < whole:
        lacking = [target - share for target, share in zip(targets, shares, strict=True)]
        shares[lacking.index(max(lacking))] += 1
    return shares


def taken_off(discount: GivenDiscount | None, price: Fraction, unit: int) -> Fraction:
    if discount is None:
        return Fraction(0)
    if discount.amount is not None:
        return exact(discount.amount) * unit
    return half_up(price * exact(discount.rate or ""))


def price_of(line: Line, unit: int) -> Fraction:
    return half_up(exact(line.unit_price) * exact(line.quantity) * unit)


def expected(case: "Case") -> list[Row]:
    """Every line, then the shipping."""
    unit = 10 ** CURRENCIES[case.terms.currency]
    bases = []
    for line in case.lines:
        price = price_of(line, unit)
        bases.append(price - taken_off(line.discount, price, unit))
    shares = shared(taken_off(case.discount, Fraction(sum(bases)), unit), bases)
    rows = [
        Row(exact(line.tax_rate), base - share)
        for line, base, share in zip(case.lines, bases, shares, strict=True)
    ]
    if case.shipping:
        rows.append(Row(exact(case.shipping.tax_rate), exact(case.shipping.price) * unit))

    def tax(amount: Fraction, rate: Fraction) -> Fraction:
        return amount * rate if case.terms.prices == "net" else amount * rate / (1 + rate)

    if case.terms.tax_rounding == "line":
        for row in rows:
            row.tax = half_up(tax(row.amount, row.rate))
    for rate in {row.rate for row in rows} if case.terms.tax_rounding == "rate" else ():
        group = [row for row in rows if row.rate == rate]
        taxes = [tax(row.amount, rate) for row in group]
        for row, share in zip(group, shared(half_up(Fraction(sum(taxes))), taxes), strict=True):
            row.tax = share
    return rows


# Orders


@dataclass
class Case:
    """An order that breaks no rule."""

    terms: Terms
    lines: list[Line]
    discount: GivenDiscount | None
    shipping: GivenShipping | None

    def priced(self) -> Priced:
        broken: list[BrokenRule] = []
        costs = reading.read(self.terms, self.lines, self.discount, self.shipping, broken)
        assert broken == []
        assert costs
        return pricing.price(self.terms, costs)


def text(value: int, decimals: int) -> str:
    return f"{Decimal(value).scaleb(-decimals):f}"


def discounts(most: Fraction, decimals: int) -> st.SearchStrategy[GivenDiscount | None]:
    """None, an amount up to this, or a rate."""
    amounts = st.integers(0, int(most)).map(lambda cents: GivenDiscount(text(cents, decimals), None, None))
    rates = st.sampled_from(["0", "0.1", "0.125", "0.333333", "1"])
    return st.none() | amounts | rates.map(lambda rate: GivenDiscount(None, rate, "SUMMER"))


@st.composite
def lines(draw: st.DrawFn, decimals: int, place: int) -> Line:
    price_decimals = draw(st.integers(decimals, 4))
    quantity_decimals = draw(st.integers(0, 3))
    line = Line(
        id=str(place),
        sku="TEA",
        name="Tea",
        quantity=draw(
            st.integers(1, 10) | st.integers(1, 10_000).map(lambda value: text(value, quantity_decimals))
        ),
        unit_price=text(draw(st.integers(0, 10**6)), price_decimals),
        tax_rate=draw(RATES),
    )
    discount = draw(discounts(price_of(line, 10**decimals), decimals))
    return replace(line, discount=discount)


@st.composite
def cases(
    draw: st.DrawFn,
    prices: Sequence[Prices] = ("net", "gross"),
    tax_rounding: Sequence[TaxRounding] = ("line", "rate"),
) -> Case:
    """One to six lines, with discounts and shipping or without."""
    currency = draw(st.sampled_from(sorted(CURRENCIES)))
    decimals = CURRENCIES[currency]
    terms = Terms(currency, draw(st.sampled_from(prices)), draw(st.sampled_from(tax_rounding)), False)
    given = [draw(lines(decimals, place)) for place in range(1, draw(st.integers(1, 6)) + 1)]
    shipping = draw(
        st.none()
        | st.builds(
            GivenShipping,
            name=st.just("Shipping"),
            price=st.integers(0, 10**5).map(lambda cents: text(cents, decimals)),
            tax_rate=RATES,
        )
    )
    prices_left = [row.amount for row in expected(Case(terms, given, None, None))]
    return Case(terms, given, draw(discounts(Fraction(sum(prices_left)), decimals)), shipping)


def charged(priced: Priced) -> list[Item | Shipping]:
    return [*priced.items, *([priced.shipping] if priced.shipping else [])]


# Properties


@given(cases())
def test_every_line_is_what_the_oracle_says(case: Case) -> None:
    priced = case.priced()
    rows = expected(case)
    parts = charged(priced)
    assert [part.tax for part in parts] == [row.tax for row in rows]
    amounts = [part.subtotal if case.terms.prices == "net" else part.total for part in parts]
    assert amounts == [row.amount for row in rows]


@given(cases())
def test_lines_and_shipping_add_up_to_the_order(case: Case) -> None:
    priced = case.priced()
    parts = charged(priced)
    assert all(part.total == part.subtotal + part.tax for part in parts)
    assert all(min(part.subtotal, part.tax) >= 0 for part in parts)
    assert priced.subtotal == sum(part.subtotal for part in parts)
    assert priced.tax == sum(part.tax for part in parts)
    assert priced.total == sum(part.total for part in parts) == priced.subtotal + priced.tax


@given(cases())
def test_discounts_add_up_to_what_was_given_and_take_no_line_below_zero(case: Case) -> None:
    unit = 10 ** CURRENCIES[case.terms.currency]
    priced = case.priced()
    bases = []
    for line, item in zip(case.lines, priced.items, strict=True):
        price = price_of(line, unit)
        off = item.discount.amount if item.discount else 0
        assert off == taken_off(line.discount, price, unit)
        bases.append(price - off)
        assert 0 <= item.order_discount <= bases[-1]
    on_order = priced.discount.amount if priced.discount else 0
    assert on_order == taken_off(case.discount, Fraction(sum(bases)), unit)
    assert on_order == sum(item.order_discount for item in priced.items)


@given(cases(prices=["gross"]))
def test_gross_prices_are_exactly_what_the_customer_pays(case: Case) -> None:
    unit = 10 ** CURRENCIES[case.terms.currency]
    priced = case.priced()
    prices = sum(price_of(line, unit) for line in case.lines)
    on_lines = sum(item.discount.amount for item in priced.items if item.discount)
    on_order = priced.discount.amount if priced.discount else 0
    shipping = exact(case.shipping.price) * unit if case.shipping else 0
    assert priced.total == prices - on_lines - on_order + shipping


@given(cases(tax_rounding=["rate"]))
def test_per_rate_the_tax_of_all_lines_of_a_rate_is_rounded_once(case: Case) -> None:
    taxes: defaultdict[Fraction, int] = defaultdict(int)
    amounts: defaultdict[Fraction, int] = defaultdict(int)
    for part in charged(case.priced()):
        taxes[exact(part.tax_rate)] += part.tax
        amounts[exact(part.tax_rate)] += part.subtotal if case.terms.prices == "net" else part.total
    for rate, amount in amounts.items():
        exactly = amount * rate if case.terms.prices == "net" else amount * rate / (1 + rate)
        assert taxes[rate] == half_up(exactly)


@given(cases())
def test_a_line_keeps_its_price_and_quantity_without_needless_zeros(case: Case) -> None:
    currency = case.terms.currency
    for line, item in zip(case.lines, case.priced().items, strict=True):
        quantity = money.format_quantity(item.quantity, item.quantity_decimals)
        unit_price = money.format_price(item.unit_price, item.unit_price_decimals, currency)
        assert exact(quantity) == exact(line.quantity)
        assert exact(unit_price) == exact(line.unit_price)
        assert not (item.quantity_decimals and quantity.endswith("0"))
        assert item.unit_price_decimals is None or not unit_price.endswith("0")
        assert item.unit_price_decimals is None or item.unit_price_decimals > CURRENCIES[currency]


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**12), min_size=1, max_size=20))
def test_a_whole_is_shared_out_by_largest_remainder(whole: int, weights: list[int]) -> None:
    whole = min(whole, sum(weights))
    assert money.spread(whole, weights) == shared(Fraction(whole), [Fraction(weight) for weight in weights])


def test_of_equal_remainders_the_earlier_is_first() -> None:
    assert money.spread(2, [1, 1, 1]) == [1, 1, 0]
    assert money.spread(5, [5, 5]) == [3, 2]
    assert money.spread(0, [0, 0]) == [0, 0]
