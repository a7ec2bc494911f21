"""The rules of an order: which are accepted, what they cost, and where they stand after their events."""

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
    Order,
    PaymentDetails,
    Placed,
    Prices,
    Reason,
    RefundDetails,
    ShipmentDetails,
    TaxRounding,
    type_of,
)
from events.countries import COUNTRIES, WITHOUT_POSTAL_CODE
from events.journey import RANKS, has_passed, place_of
from services.order.pricing import GivenDiscount, GivenShipping, Line, Priced, Terms, price
from services.order.reading import read
from services.order.refusal import BrokenRule, OrderRefused

# Acceptance and prices


def place(
    order_id: UUID,
    created_at: datetime,
    *,
    reference: str | None,
    customer: Customer,
    shipping_address: Address,
    billing_address: Address | None,
    currency: str,
    prices: Prices,
    tax_rounding: TaxRounding,
    lines: Sequence[Line],
    discount: GivenDiscount | None,
    shipping: GivenShipping | None,
    reverse_charge: bool,
    note: str | None,
    metadata: dict[str, str],
    payment_method: str | None,
) -> Placed:
    """Checks and prices an order. Raises OrderRefused with every rule that it breaks.

    `services.order.pricing` has the arithmetic. An order whose total is 0 needs no payment method and keeps
    none: nothing will be charged.
    """
    broken: list[BrokenRule] = []
    _check_address(shipping_address, "shipping_address", broken)
    if billing_address:
        _check_address(billing_address, "billing_address", broken)
    if reverse_charge and not customer.tax_id:
        broken.append(_NO_TAX_ID)
    priced: Priced | None = None
    if currency in money.EXPONENTS:
        terms = Terms(currency, prices, tax_rounding, reverse_charge)
        costs = read(terms, lines, discount, shipping, broken)
        priced = price(terms, costs) if costs else None
        _check_charge(priced.total if priced else None, currency, payment_method, broken)
    else:
        broken.append(_UNKNOWN_CURRENCY)
    if broken or not priced:
        raise OrderRefused(broken)
    order = Order(
        id=order_id,
        created_at=created_at,
        reference=reference,
        customer=customer,
        shipping_address=shipping_address,
        billing_address=billing_address,
        currency=currency,
        prices=prices,
        tax_rounding=tax_rounding,
        items=priced.items,
        discount=priced.discount,
        shipping=priced.shipping,
        subtotal=priced.subtotal,
        tax=priced.tax,
        total=priced.total,
        reverse_charge=reverse_charge,
        note=note,
        metadata=metadata,
    )
    return Placed(order=order, payment_method=payment_method if order.total else None)


def _check_address(address: Address, field: str, broken: list[BrokenRule]) -> None:
    if address.country not in COUNTRIES:
        message = "This is not an ISO 3166-1 alpha-2 country code."
        broken.append(BrokenRule((field, "country"), "unknown_country", message))
    elif not (address.shown_postal_code or address.country in WITHOUT_POSTAL_CODE):
        message = "This is required: the country has postal codes."
        broken.append(BrokenRule((field, "postal_code"), "required", message))


_UNKNOWN_CURRENCY: Final = BrokenRule(
    ("currency",), "unknown_currency", "This is not an ISO 4217 code of a currency that can be paid in."
)
_UNSUPPORTED_CURRENCY: Final = BrokenRule(
    ("currency",), "currency_unsupported", "Card payments can't be made in this currency."
)
_NO_PAYMENT_METHOD: Final = BrokenRule(
    ("payment_method",), "required", "This is required: the total is not 0."
)
_NO_TAX_ID: Final = BrokenRule(
    ("customer", "tax_id"), "required", "This is required: with reverse_charge the customer owes the tax."
)


def _check_charge(
    total: int | None, currency: str, payment_method: str | None, broken: list[BrokenRule]
) -> None:
    """Adds a broken rule for each reason why the total can't be charged. Nothing is charged if it is 0.

    The total is None if it is not known. `events.limits` knows what can be charged.
    """
    if total == 0:
        return
    if total is not None:
        _check_total(total, currency, broken)
        if payment_method is None:
            broken.append(_NO_PAYMENT_METHOD)
    if currency not in limits.LIMITS:
        broken.append(_UNSUPPORTED_CURRENCY)


def _check_total(total: int, currency: str, broken: list[BrokenRule]) -> None:
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
