"""The arithmetic of an order, from unit prices to the total: integers only, in minor units."""

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from events import money
from events.contracts import Item, Order, Prices, Taxed


def parts_of(order: Order) -> Sequence[Taxed]:
    """What has a tax of its own: the lines, then the shipping if there is one."""
    return (*order.items, order.shipping) if order.shipping else order.items


def adds_up(order: Order) -> bool:
    """Whether prices, discounts, taxes and totals follow from one another, as `events.contracts` says.

    How a tax that is rounded per rate is spread over the parts is not checked. Raises UnknownCurrency.
    """
    return _prices_agree(order) and _taxes_agree(order) and _totals_agree(order)


def _prices_agree(order: Order) -> bool:
    decimals = money.exponent(order.currency)
    shared = order.discount.amount if order.discount else 0
    return (
        all(_amount(item, order.prices) == _discounted_price(item, decimals) for item in order.items)
        and shared == sum(item.order_discount for item in order.items)
        and (order.shipping is None or order.shipping.price == _amount(order.shipping, order.prices))
    )


def _discounted_price(item: Item, decimals: int) -> int:
    price_decimals = decimals if item.unit_price_decimals is None else item.unit_price_decimals
    price = _rounded(
        item.unit_price * item.quantity * 10**decimals, 10 ** (price_decimals + item.quantity_decimals)
    )
    return price - (item.discount.amount if item.discount else 0) - item.order_discount


def _taxes_agree(order: Order) -> bool:
    parts, prices = parts_of(order), order.prices
    if order.tax_rounding == "line":
        return all(_are_taxed_together([part], prices) for part in parts)
    by_rate: defaultdict[tuple[int, int], list[Taxed]] = defaultdict(list)
    for part in parts:
        by_rate[_tax_share(part.tax_rate, prices)].append(part)
    return all(_are_taxed_together(group, prices) for group in by_rate.values())


def _are_taxed_together(parts: Sequence[Taxed], prices: Prices) -> bool:
    """Whether the taxes of parts at one rate add up to the tax on their sum."""
    numerator, denominator = _tax_share(parts[0].tax_rate, prices)
    amount = sum(_amount(part, prices) for part in parts)
    return sum(part.tax for part in parts) == _rounded(amount * numerator, denominator)


def _totals_agree(order: Order) -> bool:
    parts = parts_of(order)
    return (
        all(part.total == part.subtotal + part.tax for part in parts)
        and order.subtotal == sum(part.subtotal for part in parts)
        and order.tax == sum(part.tax for part in parts)
        and order.total == order.subtotal + order.tax
    )


def _amount(part: Taxed, prices: Prices) -> int:
    """The part's amount in the terms of the order's prices."""
    return part.subtotal if prices == "net" else part.total


@lru_cache(maxsize=1024)
def _tax_share(rate: str, prices: Prices) -> tuple[int, int]:
    """The tax's share of an amount in these terms, as numerator and denominator in lowest terms."""
    share = Fraction(rate)
    return (share if prices == "net" else share / (1 + share)).as_integer_ratio()


def _rounded(numerator: int, denominator: int) -> int:
    """The quotient of two numbers that are not negative, rounded half up."""
    return (2 * numerator + denominator) // (2 * denominator)
