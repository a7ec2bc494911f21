"""The arithmetic of an order, from unit prices to the total: integers only, in minor units."""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from events import money
from events.contracts import Item, Order, Prices, Taxed

Share = tuple[int, int]
"""A fraction: numerator and denominator in lowest terms."""


def adds_up(order: Order) -> bool:
    """Whether prices, discounts, taxes and totals follow from one another, as `events.contracts` says.

    How a tax that is rounded per rate is spread over the parts is not checked. Raises UnknownCurrency.
    """
    parts = order.taxed
    return _prices_agree(order) and _taxes_agree(order, parts) and _totals_agree(order, parts)


def _prices_agree(order: Order) -> bool:
    decimals, is_net = money.exponent(order.currency), order.prices == "net"
    shares = 0
    for item in order.items:
        if _discounted_price(item, decimals) != (item.subtotal if is_net else item.total):
            return False
        shares += item.order_discount
    if shares != (order.discount.amount if order.discount else 0):
        return False
    shipping = order.shipping
    return shipping is None or shipping.price == (shipping.subtotal if is_net else shipping.total)


def _discounted_price(item: Item, decimals: int) -> int:
    price = item.unit_price * item.quantity
    if item.quantity_decimals or item.unit_price_decimals is not None:
        given = decimals if item.unit_price_decimals is None else item.unit_price_decimals
        price = _rounded(price * 10**decimals, 10 ** (given + item.quantity_decimals))
    return price - (item.discount.amount if item.discount else 0) - item.order_discount


def _taxes_agree(order: Order, parts: Sequence[Taxed]) -> bool:
    is_net = order.prices == "net"
    taxed = [
        (_tax_share(part.tax_rate, order.prices), part.subtotal if is_net else part.total, part.tax)
        for part in parts
    ]
    if order.tax_rounding == "rate":
        taxed = _summed_by_rate(taxed)
    return all(tax == _rounded(amount * share[0], share[1]) for share, amount, tax in taxed)


def _summed_by_rate(taxed: Sequence[tuple[Share, int, int]]) -> list[tuple[Share, int, int]]:
    sums: dict[Share, tuple[int, int]] = {}
    for share, amount, tax in taxed:
        amounts, taxes = sums.get(share, (0, 0))
        sums[share] = (amounts + amount, taxes + tax)
    return [(share, amounts, taxes) for share, (amounts, taxes) in sums.items()]


def _totals_agree(order: Order, parts: Sequence[Taxed]) -> bool:
    subtotal = tax = 0
    for part in parts:
        if part.total != part.subtotal + part.tax:
            return False
        subtotal += part.subtotal
        tax += part.tax
    return (order.subtotal, order.tax, order.total) == (subtotal, tax, subtotal + tax)


@lru_cache(maxsize=1024)
def _tax_share(rate: str, prices: Prices) -> Share:
    """The tax's share of an amount in the terms of the prices."""
    share = Fraction(rate)
    return (share if prices == "net" else share / (1 + share)).as_integer_ratio()


def _rounded(numerator: int, denominator: int) -> int:
    """The quotient of two numbers that are not negative, rounded half up."""
    return (2 * numerator + denominator) // (2 * denominator)
