"""The rules of an order: which are accepted, what they cost, and where they stand after their events."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Final, Literal, TypeVar
from uuid import UUID

from events import limits, money
from events.contracts import (
    Address,
    AnyEvent,
    Customer,
    Delay,
    InvoiceDetails,
    Item,
    Order,
    PaymentDetails,
    Placed,
    Reason,
    RefundDetails,
    ShipmentDetails,
    type_of,
)
from events.journey import RANKS, has_passed, place_of
from services.order.countries import COUNTRIES, WITHOUT_POSTAL_CODE

# Acceptance and prices


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an order, priced by the caller."""

    sku: str
    name: str
    quantity: int
    unit_price: str
    """Net, a decimal string with the currency's own number of decimals."""
    tax_rate: str
    """Decimal fraction: "0.17" is 17 %."""


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """A rule that an order breaks, and the path of the field. Quotes no content of the order."""

    path: tuple[str | int, ...]
    code: str
    message: str


class OrderRefused(ValueError):
    """The order breaks the rules."""

    def __init__(self, broken: Sequence[BrokenRule]) -> None:
        super().__init__(self.__doc__)
        self.broken = tuple(broken)


def place(
    order_id: UUID,
    created_at: datetime,
    *,
    reference: str | None,
    customer: Customer,
    shipping_address: Address,
    currency: str,
    lines: Sequence[Line],
    payment_method: str,
) -> Placed:
    """Checks and prices an order. Raises OrderRefused with every rule that it breaks.

    A line's subtotal is its unit price times its quantity; its tax is rounded half up, per line, to the
    currency's minor unit. The order's amounts are the sums of its lines.
    """
    broken: list[BrokenRule] = []
    if shipping_address.country not in COUNTRIES:
        broken.append(_UNKNOWN_COUNTRY)
    elif not (shipping_address.shown_postal_code or shipping_address.country in WITHOUT_POSTAL_CODE):
        broken.append(_NO_POSTAL_CODE)
    if looks_like_card_number(payment_method):
        broken.append(_CARD_DATA)
    items: list[Item] = []
    if currency in money.EXPONENTS:
        prices = _prices(currency, lines, broken)
        if len(prices) == len(lines):
            items = [_priced(line, price) for line, price in zip(lines, prices, strict=True)]
            _check_total(items, currency, broken)
        if currency not in limits.LIMITS:
            broken.append(_UNSUPPORTED_CURRENCY)
    else:
        broken.append(_UNKNOWN_CURRENCY)
    if broken:
        raise OrderRefused(broken)
    order = Order(
        id=order_id,
        created_at=created_at,
        reference=reference,
        customer=customer,
        shipping_address=shipping_address,
        currency=currency,
        items=tuple(items),
        subtotal=sum(item.subtotal for item in items),
        tax=sum(item.tax for item in items),
        total=sum(item.total for item in items),
    )
    return Placed(order=order, payment_method=payment_method)


_UNKNOWN_COUNTRY: Final = BrokenRule(
    ("shipping_address", "country"), "unknown_country", "This is not an ISO 3166-1 alpha-2 country code."
)
_NO_POSTAL_CODE: Final = BrokenRule(
    ("shipping_address", "postal_code"), "required", "This is required: the country has postal codes."
)
_UNKNOWN_CURRENCY: Final = BrokenRule(
    ("currency",), "unknown_currency", "This is not an ISO 4217 code of a currency that can be paid in."
)
_UNSUPPORTED_CURRENCY: Final = BrokenRule(
    ("currency",), "currency_unsupported", "Card payments can't be made in this currency."
)
_CARD_DATA: Final = BrokenRule(
    ("payment_method",), "card_data", "Card data must never be sent: use the payment provider's token."
)


def _prices(currency: str, lines: Sequence[Line], broken: list[BrokenRule]) -> list[int]:
    """Unit prices in minor units. There are fewer prices than lines if one has the wrong decimals."""
    prices: list[int] = []
    for number, line in enumerate(lines):
        try:
            prices.append(money.parse_amount(line.unit_price, currency))
        except money.InvalidAmount:
            message = f"This must have the number of decimals of the currency: {money.exponent(currency)}."
            broken.append(BrokenRule(("items", number, "unit_price"), "wrong_decimals", message))
    return prices


def _priced(line: Line, unit_price: int) -> Item:
    subtotal = unit_price * line.quantity
    tax = money.tax_on(subtotal, line.tax_rate)
    return Item(
        sku=line.sku,
        name=line.name,
        quantity=line.quantity,
        unit_price=unit_price,
        tax_rate=line.tax_rate,
        subtotal=subtotal,
        tax=tax,
        total=subtotal + tax,
    )


def _check_total(items: Sequence[Item], currency: str, broken: list[BrokenRule]) -> None:
    """Adds a broken rule if the total is zero or outside of the currency's known limits for charges."""
    total = sum(item.total for item in items)
    if total == 0:
        broken.append(BrokenRule(("items",), "total_zero", "The total is 0: there is nothing to pay."))
        return

    def shown(amount: int) -> str:
        return f"{money.format_amount(amount, currency)} {currency}"

    bounds = limits.LIMITS.get(currency)
    match limits.obstacle(total, currency):
        case "amount_too_small" if bounds:
            message = f"The total is below {shown(bounds.smallest)}, the smallest amount that can be charged."
            broken.append(BrokenRule(("items",), "total_too_small", message))
        case "amount_too_large" if bounds:
            message = f"The total is over {shown(bounds.largest)}, the largest amount that can be charged."
            broken.append(BrokenRule(("items",), "total_too_large", message))
        case "amount_not_in_steps" if bounds:
            message = f"The total must be a multiple of {shown(bounds.step)}: others can't be charged."
            broken.append(BrokenRule(("items",), "total_not_in_steps", message))


_DIGITS: Final = re.compile(r"(?<![0-9])[0-9](?:[-._:]?[0-9]){11,18}(?![0-9])")


def looks_like_card_number(text: str) -> bool:
    """Whether the text has 12 to 19 digits in a row that pass the Luhn check (ISO/IEC 7812-1)."""
    return any(_passes_luhn(re.sub(r"[^0-9]", "", found)) for found in _DIGITS.findall(text))


def _passes_luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


# Where an order stands


@dataclass(frozen=True, slots=True)
class Facts:
    """The data of an event besides the order: its own and that of the events before it."""

    invoice: InvoiceDetails | None = None
    payment: PaymentDetails | None = None
    reason: Reason | None = None
    shipment: ShipmentDetails | None = None
    refund: RefundDetails | None = None
    delay: Delay | None = None


_FACT_NAMES: Final = tuple(field.name for field in fields(Facts))
F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One event of an order: a line of its timeline, or a delay (ORDER_DELAYED)."""

    type: str
    event_id: UUID
    time: datetime
    facts: Facts

    @classmethod
    def of(cls, event: AnyEvent) -> "TimelineEntry":
        """The entry that records an event."""
        facts = Facts(**{name: getattr(event.data, name, None) for name in _FACT_NAMES})
        return cls(type_of(type(event)), event.id, event.time, facts)

    @property
    def detail(self) -> InvoiceDetails | PaymentDetails | Reason | ShipmentDetails | RefundDetails | None:
        """The fact that this event was the first to carry."""
        latest_first = (self.facts.refund, self.facts.shipment, self.facts.reason, self.facts.payment)
        return next((fact for fact in latest_first if fact), self.facts.invoice)


PaymentStatus = Literal["captured", "failed", "refunded"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an order stands."""

    status: str
    """The furthest milestone that the order has reached."""
    timeline: tuple[TimelineEntry, ...]
    """The milestones, sorted by rank, then time."""
    reason: Reason | None
    """Why the order ended badly, or None."""
    invoice: InvoiceDetails | None
    payment: PaymentDetails | None
    payment_status: PaymentStatus | None
    shipment: ShipmentDetails | None
    waiting: Delay | None
    """The delay that a service has announced and the order has not passed, or None."""

    @classmethod
    def of(cls, entries: Iterable[TimelineEntry]) -> "Progress":
        """A pure function of the set of events: their order and duplicates do not matter.

        At least one must be a milestone. Each event carries the facts of those before it, so the invoice is
        known from a payment even while INVOICE_CREATED is late. Types that this version does not know are
        left out.
        """
        entries = list(entries)
        seen = {entry.event_id: entry for entry in entries if entry.type in RANKS}.values()
        timeline = tuple(sorted(seen, key=lambda entry: (RANKS[entry.type], entry.time, entry.event_id)))
        furthest_first = sorted(timeline, key=lambda entry: -RANKS[entry.type])
        furthest = furthest_first[0]
        return cls(
            status=status_of(entry.type for entry in timeline),
            timeline=timeline,
            reason=furthest.facts.reason,
            invoice=_first(entry.facts.invoice for entry in furthest_first),
            payment=_first(entry.facts.payment for entry in furthest_first),
            payment_status=_payment_status(furthest.facts),
            shipment=_first(entry.facts.shipment for entry in furthest_first),
            waiting=_waiting(entries, [entry.type for entry in timeline]),
        )


def _first(facts: Iterable[F | None]) -> F | None:
    return next((fact for fact in facts if fact is not None), None)


def _waiting(entries: Iterable[TimelineEntry], milestones: Sequence[str]) -> Delay | None:
    """The latest delay of the furthest stage that the order has not passed."""
    delays = [
        (place_of(entry.facts.delay.stage), entry.time, entry.event_id, entry.facts.delay)
        for entry in entries
        if entry.facts.delay and not has_passed(entry.facts.delay.stage, milestones)
    ]
    return max(delays, key=lambda delay: delay[:3])[-1] if delays else None


def _payment_status(furthest: Facts) -> PaymentStatus | None:
    if furthest.refund:
        return "refunded"
    if furthest.payment:
        return "captured"
    return "failed" if furthest.reason else None


def status_of(types: Iterable[str]) -> str:
    """The furthest of these milestones, of which there is at least one."""
    return max(types, key=RANKS.__getitem__)
