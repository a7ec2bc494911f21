"""What an order costs: its lines, discounts, shipping and taxes, in integers and exact ratios of them.

A line's price is its unit price times its quantity. The discount on the line and the line's share of the
discount on the order are taken off. The rest is the line without tax if prices are net, with tax if they are
gross.

Every amount is rounded half up, once, to the currency's minor unit: a line's price, a discount that was given
as a rate, and a tax.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from events import money
from events.contracts import Discount, Item, Prices, Shipping, TaxCategory, TaxRounding

# What the caller gives


@dataclass(frozen=True, slots=True)
class GivenDiscount:
    """A discount on a line or on the order. Exactly one of `amount` and `rate` is given."""

    amount: str | None
    """A decimal string with exactly the currency's decimals, without tax if prices are net, else with it."""
    rate: str | None
    """Decimal fraction: "0.1" is 10 %."""
    name: str | None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an order, priced by the caller."""

    id: str
    sku: str
    name: str
    quantity: int | str
    """An integer, or a decimal string with up to three decimals."""
    unit_price: str
    """A decimal string with the currency's decimals or more, up to four."""
    tax_rate: str
    """Decimal fraction: "0.17" is 17 %."""
    tax_category: TaxCategory | None = None
    exemption_reason: str | None = None
    discount: GivenDiscount | None = None


@dataclass(frozen=True, slots=True)
class GivenShipping:
    """What the shipping costs. No discount applies to it."""

    name: str
    price: str
    """A decimal string with exactly the currency's decimals."""
    tax_rate: str
    tax_category: TaxCategory | None = None
    exemption_reason: str | None = None


class Terms(NamedTuple):
    """How an order's prices are meant."""

    currency: str
    """One of money.EXPONENTS."""
    prices: Prices
    tax_rounding: TaxRounding
    reverse_charge: bool


# The same in numbers. Amounts are in minor units.


class LineCost(NamedTuple):
    """A line, read."""

    given: Line
    category: TaxCategory
    unit_price: int
    unit_price_decimals: int | None
    quantity: int
    quantity_decimals: int
    discount: Discount | None
    amount: int
    """The price less the discount on the line."""


class ShippingCost(NamedTuple):
    """The shipping, read."""

    given: GivenShipping
    category: TaxCategory
    amount: int


class Costs(NamedTuple):
    """An order's lines, the discount on the order, and its shipping, read."""

    lines: Sequence[LineCost]
    discount: Discount | None
    """At most the sum of the lines' amounts."""
    shipping: ShippingCost | None


# What it costs


class Priced(NamedTuple):
    """The parts of an order with their amounts, and the sums over the lines and the shipping."""

    items: tuple[Item, ...]
    discount: Discount | None
    shipping: Shipping | None
    subtotal: int
    tax: int
    total: int


def price(terms: Terms, costs: Costs) -> Priced:
    """Prices an order."""
    amounts = [line.amount for line in costs.lines]
    shares = [0] * len(amounts)
    if costs.discount:
        shares = money.spread(costs.discount.amount, amounts)
        amounts = [amount - share for amount, share in zip(amounts, shares, strict=True)]
    taxed: Sequence[LineCost | ShippingCost] = costs.lines
    if costs.shipping:
        taxed = [*costs.lines, costs.shipping]
        amounts.append(costs.shipping.amount)
    taxes = taxes_on(terms, taxed, amounts)
    nets = amounts if terms.prices == "net" else [a - tax for a, tax in zip(amounts, taxes, strict=True)]
    subtotal, tax = sum(nets), sum(taxes)
    return Priced(
        items=tuple(map(_item, costs.lines, shares, nets, taxes)),
        discount=costs.discount,
        shipping=_shipping(costs.shipping, nets[-1], taxes[-1]) if costs.shipping else None,
        subtotal=subtotal,
        tax=tax,
        total=subtotal + tax,
    )


def taxes_on(terms: Terms, taxed: Sequence[LineCost | ShippingCost], amounts: Sequence[int]) -> list[int]:
    """The tax on each amount, or in it if prices are gross.

    Rounded per rate, the tax of all lines of one category and rate is rounded once. Their shares of it are in
    proportion to their exact taxes, and so to their amounts.
    """
    tax_of = money.tax_on if terms.prices == "net" else money.tax_within
    if terms.tax_rounding == "line":
        return [tax_of(amount, each.given.tax_rate) for amount, each in zip(amounts, taxed, strict=True)]
    groups: defaultdict[tuple[TaxCategory, tuple[int, int]], list[int]] = defaultdict(list)
    for place, each in enumerate(taxed):
        groups[each.category, money.ratio(each.given.tax_rate)].append(place)
    taxes = [0] * len(amounts)
    for places in groups.values():
        group = [amounts[place] for place in places]
        tax = tax_of(sum(group), taxed[places[0]].given.tax_rate)
        for place, share in zip(places, money.spread(tax, group), strict=True):
            taxes[place] = share
    return taxes


def _item(cost: LineCost, order_discount: int, net: int, tax: int) -> Item:
    line = cost.given
    return Item(
        id=line.id,
        sku=line.sku,
        name=line.name,
        quantity=cost.quantity,
        quantity_decimals=cost.quantity_decimals,
        unit_price=cost.unit_price,
        unit_price_decimals=cost.unit_price_decimals,
        discount=cost.discount,
        order_discount=order_discount,
        tax_rate=line.tax_rate,
        tax_category=cost.category,
        exemption_reason=line.exemption_reason,
        subtotal=net,
        tax=tax,
        total=net + tax,
    )


def _shipping(cost: ShippingCost, net: int, tax: int) -> Shipping:
    given = cost.given
    return Shipping(
        name=given.name,
        price=cost.amount,
        tax_rate=given.tax_rate,
        tax_category=cost.category,
        exemption_reason=given.exemption_reason,
        subtotal=net,
        tax=tax,
        total=net + tax,
    )
