"""What an order costs, in the words and numbers that its customer reads; the same for text and HTML."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple

from events.contracts import Discount, Item, Order, Prices, Shipping, Taxed
from events.money import format_amount, format_price, format_quantity

_UNTAXED: Final[Mapping[str | None, str]] = {
    "E": "Exempt from tax",
    "AE": "Reverse charge: you owe the tax to your tax office",
    "K": "Supply to another country of the European Union, free of tax",
    "G": "Export, free of tax",
    "O": "Not subject to tax",
}
"""By tax category: why there is no tax. The zero rate (Z) is a rate like others and has no such words."""


class Label(NamedTuple):
    """What an amount is for: `words (name), tax`. The name is the merchant's, the rest is ours."""

    words: str
    name: str | None = None
    tax: str = ""
    """The rate of its tax, with a comma before: `, plus 17% tax`."""


class Row(NamedTuple):
    """An amount and what it is for."""

    label: Label
    amount: str


class Line(NamedTuple):
    """One line of the order. `price` is before every discount."""

    name: str
    terms: str
    """Quantity and unit price."""
    tax: str
    """The rate of its tax, with a comma before: `, plus 17% tax`."""
    price: str
    discount: Row | None


class Bill(NamedTuple):
    """An order's amounts. Those of its lines and of `rows` add up to the total."""

    lines: list[Line]
    rows: list[Row]
    """The order's discount and shipping; tax where the prices are without it, after the subtotal."""
    total: str
    notes: list[Label]
    """The tax that the prices include, and why there is no tax on the order or on a part of it."""

    @classmethod
    def of(cls, order: Order) -> "Bill":
        """The bill of an order."""
        lines = [_line(item, order) for item in order.items]
        total = money(order.total, order.currency)
        return cls(lines, list(_rows(order)), total, list(_notes(order)))


def money(minor: int, currency: str) -> str:
    """An amount such as `46.57 BRL`, without a place to break the line."""
    return _in(currency, format_amount(minor, currency))


def _in(currency: str, amount: str) -> str:
    return f"{amount}\N{NO-BREAK SPACE}{currency}"


def _line(item: Item, order: Order) -> Line:
    currency, discount = order.currency, item.discount
    price = (item.subtotal if order.prices == "net" else item.total) + item.order_discount
    quantity = format_quantity(item.quantity, item.quantity_decimals)
    unit_price = _in(currency, format_price(item.unit_price, item.unit_price_decimals, currency))
    return Line(
        name=item.name,
        terms=f"{quantity} \N{MULTIPLICATION SIGN} {unit_price}",
        tax=_tax_words(item, order.prices),
        price=money(price + discount.amount if discount else price, currency),
        discount=_reduction(discount, currency) if discount else None,
    )


def _rows(order: Order) -> Iterator[Row]:
    currency = order.currency
    if order.discount:
        yield _reduction(order.discount, currency)
    if order.shipping:
        yield _shipping(order.shipping, order)
    if order.prices == "net" and order.tax:
        yield Row(Label("Subtotal"), money(order.subtotal, currency))
        for rate, tax in _taxes(order).items():
            yield Row(Label(f"{rate} tax"), money(tax, currency))


def _notes(order: Order) -> Iterator[Label]:
    if order.prices == "gross":
        for rate, tax in _taxes(order).items():
            yield Label(f"Including {rate} tax: {money(tax, order.currency)}")
    yield from dict.fromkeys(
        Label(_UNTAXED[taxed.tax_category], taxed.exemption_reason)
        for taxed in order.taxed
        if taxed.tax_category in _UNTAXED
    )


def _reduction(discount: Discount, currency: str) -> Row:
    words = f"{_percent(discount.rate)} discount" if discount.rate else "Discount"
    return Row(Label(words, discount.name), f"\N{MINUS SIGN}{money(discount.amount, currency)}")


def _shipping(shipping: Shipping, order: Order) -> Row:
    name = None if shipping.name == "Shipping" else shipping.name
    amount = money(shipping.price, order.currency) if shipping.price else "free"
    return Row(Label("Shipping", name, _tax_words(shipping, order.prices)), amount)


def _tax_words(taxed: Taxed, prices: Prices) -> str:
    if not taxed.tax:
        return ""
    return f", {'plus' if prices == 'net' else 'including'} {_percent(taxed.tax_rate)} tax"


def _taxes(order: Order) -> dict[str, int]:
    """The order's tax by rate, such as `17%`; the lowest rate is first."""
    taxes: dict[str, int] = {}
    for taxed in sorted(order.taxed, key=lambda taxed: Decimal(taxed.tax_rate)):
        if taxed.tax:
            rate = _percent(taxed.tax_rate)
            taxes[rate] = taxes.get(rate, 0) + taxed.tax
    return taxes


@lru_cache(maxsize=256)
def _percent(rate: str) -> str:
    """A rate in per cent: "0.17" is 17%."""
    return f"{(Decimal(rate) * 100).normalize():f}%"
