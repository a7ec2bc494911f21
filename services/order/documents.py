"""The JSON that the order's API answers: an order and where it stands.

Plain dataclasses, which pydantic describes and msgspec writes: frozen ones would take three times as long to
make.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal, get_args
from uuid import UUID

import msgspec
from pydantic import Field

from events import contracts, delays, journey, money
from services.order import domain

_encoder: Final = msgspec.json.Encoder()

Amount = Annotated[
    str, Field(pattern=r"^(0|[1-9][0-9]*)(\.[0-9]{2,3})?$", description="In the order's currency.")
]
UnitPrice = Annotated[
    str, Field(pattern=r"^(0|[1-9][0-9]*)(\.[0-9]{1,4})?$", description="In the order's currency.")
]
Quantity = int | Annotated[str, Field(pattern=r"^(0|[1-9][0-9]*)\.[0-9]{0,2}[1-9]$")]


@dataclass(slots=True)
class Customer:
    """The customer who ordered."""

    name: str
    email: str
    locale: str | None
    company: str | None
    phone: str | None
    tax_id: str | None


@dataclass(slots=True)
class Address:
    """A postal address."""

    line1: str
    line2: str | None
    city: str
    state: str | None
    postal_code: str | None
    country: str
    name: str | None
    company: str | None


@dataclass(slots=True)
class Discount:
    """A discount that was given: its amount, and the rate if it was given as a rate."""

    amount: Amount
    rate: str | None
    name: str | None


@dataclass(slots=True)
class Item:
    """One line. Its amounts are after both discounts; `total` is `subtotal` and `tax` together."""

    id: str
    sku: str
    name: str
    quantity: Quantity
    unit_price: UnitPrice
    discount: Discount | None
    order_discount: Amount
    tax_rate: str
    tax_category: contracts.TaxCategory
    exemption_reason: str | None
    subtotal: Amount
    tax: Amount
    total: Amount


@dataclass(slots=True)
class Shipping:
    """What the shipping costs. `total` is `subtotal` and `tax` together."""

    name: str
    price: Amount
    tax_rate: str
    tax_category: contracts.TaxCategory
    exemption_reason: str | None
    subtotal: Amount
    tax: Amount
    total: Amount


@dataclass(slots=True)
class Reason:
    """Why the order ended badly."""

    code: str
    message: str
    stage: Literal["payment", "shipment"]


@dataclass(slots=True)
class Cause:
    """Why the order waits: a stable code, and a sentence for people."""

    code: Annotated[
        str, Field(json_schema_extra={"enum": sorted(cause.code for cause in delays.CAUSES.values())})
    ]
    message: str


@dataclass(slots=True)
class Waiting:
    """The delay of an order that has waited for over a minute: the stage, the reason and the start."""

    stage: Annotated[str, Field(json_schema_extra={"enum": list(get_args(contracts.DelayStage))})]
    reason: Cause
    since: datetime


@dataclass(slots=True)
class Invoice:
    """The order's invoice; `GET /invoices/{number}` has it in full."""

    number: str


@dataclass(slots=True)
class OrderPayment:
    """The order's payment; a payment that failed has no id."""

    id: str | None
    status: domain.PaymentStatus


OrderPayment.__name__ = OrderPayment.__qualname__ = "Payment"  # as the API's description names it


@dataclass(slots=True)
class Shipment:
    """The order's parcel."""

    carrier: str
    tracking_number: str


@dataclass(slots=True)
class Entry:
    """One milestone in the life of the order."""

    type: str
    time: datetime
    event_id: UUID
    detail: dict[str, Any]


@dataclass(slots=True)
class Order:
    """An order and where it stands. Fields not known yet are null."""

    id: UUID
    reference: str | None
    status: Annotated[str, Field(json_schema_extra={"enum": list(journey.RANKS)})]
    reason: Reason | None
    waiting: Waiting | None
    created_at: datetime
    currency: str
    prices: contracts.Prices
    tax_rounding: contracts.TaxRounding
    subtotal: Amount
    tax: Amount
    total: Amount
    items: list[Item]
    discount: Discount | None
    shipping: Shipping | None
    reverse_charge: bool
    customer: Customer
    shipping_address: Address
    billing_address: Address | None
    note: str | None
    metadata: dict[str, str]
    invoice: Invoice | None
    payment: OrderPayment | None
    shipment: Shipment | None
    timeline: list[Entry]

    @classmethod
    def of(cls, order: contracts.Order, entries: Sequence[domain.TimelineEntry]) -> "Order":
        """Shows the order, and where it stands after these events."""
        progress = domain.Progress.of(entries)
        billing_address, shipping = order.billing_address, order.shipping
        return cls(
            id=order.id,
            reference=order.reference,
            status=progress.status,
            reason=_reason(progress.reason),
            waiting=_waiting(progress.waiting),
            created_at=order.created_at,
            currency=order.currency,
            prices=order.prices,
            tax_rounding=order.tax_rounding,
            subtotal=money.format_amount(order.subtotal, order.currency),
            tax=money.format_amount(order.tax, order.currency),
            total=money.format_amount(order.total, order.currency),
            items=[_item(item, place, order.currency) for place, item in enumerate(order.items, 1)],
            discount=_discount(order.discount, order.currency),
            shipping=_shipping(shipping, order.currency) if shipping else None,
            reverse_charge=order.reverse_charge,
            customer=_customer(order.customer),
            shipping_address=_address(order.shipping_address),
            billing_address=_address(billing_address) if billing_address else None,
            note=order.note,
            metadata=order.metadata,
            invoice=Invoice(number=progress.invoice.number) if progress.invoice else None,
            payment=_payment(progress),
            shipment=_parcel(progress.shipment),
            timeline=[_entry(entry, order.currency) for entry in progress.timeline],
        )

    def json(self) -> bytes:
        """As JSON; the same document gives the same bytes."""
        return _encoder.encode(self)


def _item(item: contracts.Item, place: int, currency: str) -> Item:
    return Item(
        id=item.id or str(place),
        sku=item.sku,
        name=item.name,
        quantity=money.quantity_in_json(item.quantity, item.quantity_decimals),
        unit_price=money.format_price(item.unit_price, item.unit_price_decimals, currency),
        discount=_discount(item.discount, currency),
        order_discount=money.format_amount(item.order_discount, currency),
        tax_rate=item.tax_rate,
        tax_category=item.category,
        exemption_reason=item.exemption_reason,
        subtotal=money.format_amount(item.subtotal, currency),
        tax=money.format_amount(item.tax, currency),
        total=money.format_amount(item.total, currency),
    )


def _shipping(shipping: contracts.Shipping, currency: str) -> Shipping:
    return Shipping(
        name=shipping.name,
        price=money.format_amount(shipping.price, currency),
        tax_rate=shipping.tax_rate,
        tax_category=shipping.category,
        exemption_reason=shipping.exemption_reason,
        subtotal=money.format_amount(shipping.subtotal, currency),
        tax=money.format_amount(shipping.tax, currency),
        total=money.format_amount(shipping.total, currency),
    )


def _discount(discount: contracts.Discount | None, currency: str) -> Discount | None:
    if discount is None:
        return None
    amount = money.format_amount(discount.amount, currency)
    return Discount(amount=amount, rate=discount.rate, name=discount.name)


def _customer(customer: contracts.Customer) -> Customer:
    return Customer(
        name=customer.name,
        email=customer.email,
        locale=customer.locale,
        company=customer.company,
        phone=customer.phone,
        tax_id=customer.tax_id,
    )


def _address(address: contracts.Address) -> Address:
    return Address(
        line1=address.line1,
        line2=address.line2,
        city=address.city,
        state=address.state,
        postal_code=address.shown_postal_code,
        country=address.country,
        name=address.name,
        company=address.company,
    )


def _reason(reason: contracts.Reason | None) -> Reason | None:
    return Reason(code=reason.code, message=reason.message, stage=reason.stage) if reason else None


def _waiting(delay: contracts.Delay | None) -> Waiting | None:
    if delay is None:
        return None
    cause = Cause(code=delay.reason.code, message=delay.reason.message)
    return Waiting(stage=delay.stage, reason=cause, since=delay.since)


def _payment(progress: domain.Progress) -> OrderPayment | None:
    if progress.payment_status is None:
        return None
    return OrderPayment(id=progress.payment.id if progress.payment else None, status=progress.payment_status)


def _parcel(shipment: contracts.ShipmentDetails | None) -> Shipment | None:
    if shipment is None:
        return None
    return Shipment(carrier=shipment.carrier, tracking_number=shipment.tracking_number)


NOT_IN_DETAIL: Final = "seller"
"""The invoice has the seller's data; a line of the timeline does not repeat it."""
_AMOUNTS: Final = ("amount", "subtotal", "tax", "total")


def _entry(entry: domain.TimelineEntry, currency: str) -> Entry:
    detail: dict[str, Any] = msgspec.to_builtins(entry.detail) if entry.detail else {}
    detail.pop(NOT_IN_DETAIL, None)
    for part in (detail, *detail.get("lines", ())):
        for name in _AMOUNTS:
            if name in part:
                part[name] = money.format_amount(part[name], currency)
    return Entry(type=entry.type, time=entry.time, event_id=entry.event_id, detail=detail)
