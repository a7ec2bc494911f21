"""Reads an order's prices: the caller's texts become numbers, and the rules that a number breaks are told."""

from collections.abc import Sequence
from typing import TypeAlias

from events import money
from events.contracts import SHIPPING_LINE, Discount, TaxCategory
from services.order.pricing import (
    Costs,
    GivenDiscount,
    GivenShipping,
    Line,
    LineCost,
    ShippingCost,
    Terms,
)
from services.order.refusal import BrokenRule

Path: TypeAlias = tuple[str | int, ...]


def read(
    terms: Terms,
    lines: Sequence[Line],
    discount: GivenDiscount | None,
    shipping: GivenShipping | None,
    broken: list[BrokenRule],
) -> Costs | None:
    """The order in numbers. If it breaks rules, adds each of them to `broken` and returns None.

    Every amount that `pricing.price` makes of the numbers is within the bounds of `events.contracts` if the
    order's total is.
    """
    known = len(broken)
    reader = _Reader(terms, broken)
    reader.check_ids(lines)
    costs = [cost for place, line in enumerate(lines) if (cost := reader.line(line, ("items", place)))]
    freight = reader.shipping(shipping) if shipping else None
    given = None
    if discount:
        total = sum(cost.amount for cost in costs) if len(costs) == len(lines) else None
        given = reader.discount(discount, ("discount",), total)
    return Costs(costs, given, freight) if len(broken) == known else None


class _Reader:
    """Adds a broken rule for what can't be read, and returns None instead of it."""

    def __init__(self, terms: Terms, broken: list[BrokenRule]) -> None:
        self.currency = terms.currency
        self.decimals = money.exponent(terms.currency)
        self.reverse_charge = terms.reverse_charge
        self.broken = broken

    def check_ids(self, lines: Sequence[Line]) -> None:
        """Adds a broken rule for each id that is taken."""
        taken = {SHIPPING_LINE}
        for place, line in enumerate(lines):
            if line.id not in taken:
                taken.add(line.id)
                continue
            path = ("items", place, "id")
            if line.id == SHIPPING_LINE:
                self.broken.append(BrokenRule(path, "reserved_line_id", "This id stands for the shipping."))
            else:
                message = "An earlier line has this id. A line without an id has its place: 1, 2, …"
                self.broken.append(BrokenRule(path, "duplicate_line_id", message))

    def line(self, line: Line, path: Path) -> LineCost | None:
        """The numbers of a line."""
        category = self.category(line, path)
        unit_price = self.unit_price(line.unit_price, path)
        quantity = self.quantity(line.quantity, path)
        if unit_price is None or quantity is None:
            if line.discount:
                self.discount(line.discount, (*path, "discount"), None)
            return None
        price = unit_price[0] * quantity[0]
        if unit_price[1] is not None or quantity[1]:
            decimals = self.decimals if unit_price[1] is None else unit_price[1]
            price = money.rounded(price, 10 ** (decimals + quantity[1] - self.decimals))
        if unit_price[0] > money.MAX_UNIT_PRICE and price <= money.MAX_AMOUNT:
            message = f"This must have at most {len(str(money.MAX_UNIT_PRICE))} digits."
            self.broken.append(BrokenRule((*path, "unit_price"), "too_large", message))
        discount = self.discount(line.discount, (*path, "discount"), price) if line.discount else None
        amount = price - discount.amount if discount else price
        return LineCost(line, category, *unit_price, *quantity, discount, amount)

    def shipping(self, given: GivenShipping) -> ShippingCost | None:
        """The numbers of the shipping."""
        category = self.category(given, ("shipping",))
        price = self.amount(given.price, ("shipping", "price"))
        return None if price is None else ShippingCost(given, category, price)

    def discount(self, given: GivenDiscount, path: Path, price: int | None) -> Discount | None:
        """The discount on this price, which is None where it can't be read."""
        match given.amount, given.rate:
            case str(text), None:
                amount = self.amount(text, (*path, "amount"))
            case None, str(rate):
                amount = None if price is None else money.share_of(price, rate)
            case _:
                one_of_both = "This must have either an amount or a rate."
                self.broken.append(BrokenRule(path, "amount_or_rate", one_of_both))
                return None
        if amount is None or price is None:
            return None
        if price > money.MAX_AMOUNT:
            most = f"{money.format_amount(money.MAX_AMOUNT, self.currency)} {self.currency}"
            too_much = f"The price that it is on is over {most}, the largest amount of an order."
            self.broken.append(BrokenRule(path, "price_too_large", too_much))
        elif amount > price:
            larger = "This is larger than the price that it is on."
            self.broken.append(BrokenRule((*path, "amount"), "discount_too_large", larger))
        return Discount(amount=amount, rate=given.rate, name=given.name)

    def amount(self, text: str, path: Path) -> int | None:
        """Minor units."""
        try:
            return money.parse_amount(text, self.currency)
        except money.InvalidAmount:
            message = f"This must have the number of decimals of the currency: {self.decimals}."
            self.broken.append(BrokenRule(path, "wrong_decimals", message))
            return None

    def unit_price(self, text: str, path: Path) -> tuple[int, int | None] | None:
        """A unit price, and its decimals if it has more than the currency."""
        try:
            return money.parse_price(text, self.currency)
        except money.InvalidAmount:
            message = f"This must have {self.decimals} to {money.PRICE_DECIMALS} decimals in this currency."
            self.broken.append(BrokenRule((*path, "unit_price"), "wrong_decimals", message))
            return None

    def quantity(self, given: int | str, path: Path) -> tuple[int, int] | None:
        """A quantity and its decimals."""
        try:
            quantity, decimals = (given, 0) if isinstance(given, int) else money.parse_quantity(given)
        except money.InvalidAmount:
            fewer = f"This must have at most {money.QUANTITY_DECIMALS} decimals."
            self.broken.append(BrokenRule((*path, "quantity"), "wrong_decimals", fewer))
            return None
        if quantity <= 0:
            self.broken.append(BrokenRule((*path, "quantity"), "too_small", "This must be over 0."))
            return None
        if quantity > money.MAX_QUANTITY * 10**decimals:
            less = f"This must be at most {money.MAX_QUANTITY}."
            self.broken.append(BrokenRule((*path, "quantity"), "too_large", less))
            return None
        return quantity, decimals

    def category(self, given: Line | GivenShipping, path: Path) -> TaxCategory:
        """The tax category. It follows from the rate and from the reverse charge if none was given."""
        taxed = money.ratio(given.tax_rate)[0] > 0
        category = given.tax_category or ("AE" if self.reverse_charge else "S" if taxed else "Z")
        if self.reverse_charge:
            self.check_reverse_charge(category, taxed, path)
        else:
            self.check_category(category, taxed, (*path, "tax_category"))
        path = (*path, "exemption_reason")
        if category == "E" and given.exemption_reason is None:
            message = "This is required: category E needs the reason."
            self.broken.append(BrokenRule(path, "required", message))
        if category in ("S", "Z", "L", "M") and given.exemption_reason is not None:
            message = "Categories S, Z, L and M have no exemption reason."
            self.broken.append(BrokenRule(path, "needless_exemption_reason", message))
        return category

    def check_category(self, category: TaxCategory, taxed: bool, path: Path) -> None:
        """Adds a broken rule if the category does not go with the rate."""
        if category == "AE":
            message = "Category AE is for orders with reverse_charge."
            self.broken.append(BrokenRule(path, "wrong_tax_category", message))
        elif category == "S" and not taxed:
            message = "Category S needs a tax rate over 0."
            self.broken.append(BrokenRule(path, "wrong_tax_category", message))
        elif taxed and category not in ("S", "L", "M"):
            message = "Only categories S, L and M have tax rates over 0."
            self.broken.append(BrokenRule(path, "wrong_tax_category", message))

    def check_reverse_charge(self, category: TaxCategory, taxed: bool, path: Path) -> None:
        """Adds a broken rule for a rate or a category that a reverse charge can't have."""
        if taxed:
            message = "This must be 0: with reverse_charge the customer owes the tax."
            self.broken.append(BrokenRule((*path, "tax_rate"), "rate_not_zero", message))
        if category != "AE":
            message = "This must be AE, or be left out: the order has reverse_charge."
            self.broken.append(BrokenRule((*path, "tax_category"), "wrong_tax_category", message))
