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


@dataclass(frozen=True, slots=True)
class Terms:
    """How an order's prices are meant."""

    currency: str
    """One of money.EXPONENTS."""
    prices: Prices
    tax_rounding: TaxRounding
    reverse_charge: bool


# The same in numbers. Amounts are in minor units.


class LineCost(NamedTuple):
    """A line, read."""

    line: Line
    category: TaxCategory
    unit_price: int
    unit_price_decimals: int | None
    quantity: int
    quantity_decimals: int
    price: int
    discount: Discount | None

    @property
    def base(self) -> int:
        """The price less the discount on the line."""
        return self.price - self.discount.amount if self.discount else self.price


class ShippingCost(NamedTuple):
    """The shipping, read."""

    given: GivenShipping
    category: TaxCategory
    price: int


class Costs(NamedTuple):
    """An order's lines, the discount on the order, and its shipping, read."""

    lines: Sequence[LineCost]
    discount: Discount | None
    """At most the sum of the lines' bases."""
    shipping: ShippingCost | None


# What it costs


@dataclass(frozen=True, slots=True)
class Priced:
    """The parts of an order with their amounts, and the sums over the lines and the shipping."""

    items: tuple[Item, ...]
    discount: Discount | None
    shipping: Shipping | None
    subtotal: int
    tax: int
    total: int


def price(terms: Terms, costs: Costs) -> Priced:
    """Prices an order."""
    bases = [line.base for line in costs.lines]
    shares = money.spread(costs.discount.amount, bases) if costs.discount else [0] * len(bases)
    amounts = [base - share for base, share in zip(bases, shares, strict=True)]
    kinds = [(cost.category, cost.line.tax_rate) for cost in costs.lines]
    if costs.shipping:
        amounts.append(costs.shipping.price)
        kinds.append((costs.shipping.category, costs.shipping.given.tax_rate))
    taxes = taxes_on(terms, kinds, amounts)
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


def taxes_on(terms: Terms, kinds: Sequence[tuple[TaxCategory, str]], amounts: Sequence[int]) -> list[int]:
    """The tax of each amount, whose category and rate are its kind.

    Rounded per rate, the tax on all amounts of one kind is rounded once. Their shares of it are in proportion
    to their exact taxes, and so to the amounts.
    """
    tax_of = money.part_of if terms.prices == "net" else money.tax_within
    if terms.tax_rounding == "line":
        return [tax_of(amount, rate) for amount, (_, rate) in zip(amounts, kinds, strict=True)]
    groups: defaultdict[tuple[TaxCategory, tuple[int, int]], list[int]] = defaultdict(list)
    for place, (category, rate) in enumerate(kinds):
        groups[category, money.ratio(rate)].append(place)
    taxes = [0] * len(amounts)
    for places in groups.values():
        group = [amounts[place] for place in places]
        tax = tax_of(sum(group), kinds[places[0]][1])
        for place, share in zip(places, money.spread(tax, group), strict=True):
            taxes[place] = share
    return taxes


def _item(cost: LineCost, order_discount: int, net: int, tax: int) -> Item:
    line = cost.line
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
        price=cost.price,
        tax_rate=given.tax_rate,
        tax_category=cost.category,
        exemption_reason=given.exemption_reason,
        subtotal=net,
        tax=tax,
        total=net + tax,
    )
