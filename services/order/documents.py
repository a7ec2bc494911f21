"""The JSON that the order's API answers: an order and where it stands.

Plain dataclasses, which pydantic describes and msgspec writes: frozen ones would take three times as long to
make.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from pydantic import Field

from events import contracts, delays, journey, money
from services.order import domain

_encoder: Final = msgspec.json.Encoder()

Amount = Annotated[
    str, Field(pattern=r"^(0|[1-9][0-9]*)(\.[0-9]{2,3})?$", description="In the order's currency.")
]


@dataclass(slots=True)
class Customer:
    """The customer who ordered."""

    name: str
    email: str
    locale: str | None


@dataclass(slots=True)
class Address:
    """Where the parcel goes."""

    line1: str
    line2: str | None
    city: str
    state: str | None
    postal_code: str | None
    country: str


@dataclass(slots=True)
class Item:
    """One line; `total` includes its tax, rounded half up."""

    sku: str
    name: str
    quantity: int
    unit_price: Amount
    tax_rate: str
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

    stage: contracts.DelayStage
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
    subtotal: Amount
    tax: Amount
    total: Amount
    items: list[Item]
    customer: Customer
    shipping_address: Address
    invoice: Invoice | None
    payment: OrderPayment | None
    shipment: Shipment | None
    timeline: list[Entry]

    @classmethod
    def of(cls, order: contracts.Order, entries: Sequence[domain.TimelineEntry]) -> "Order":
        """Shows the order, and where it stands after these events."""
        progress = domain.Progress.of(entries)
        return cls(
            id=order.id,
            reference=order.reference,
            status=progress.status,
            reason=_reason(progress.reason),
            waiting=_waiting(progress.waiting),
            created_at=order.created_at,
            currency=order.currency,
            subtotal=money.format_amount(order.subtotal, order.currency),
            tax=money.format_amount(order.tax, order.currency),
            total=money.format_amount(order.total, order.currency),
            items=[_item(item, order.currency) for item in order.items],
            customer=Customer(
                name=order.customer.name, email=order.customer.email, locale=order.customer.locale
            ),
            shipping_address=_address(order.shipping_address),
            invoice=Invoice(number=progress.invoice.number) if progress.invoice else None,
            payment=_payment(progress),
            shipment=_shipment(progress.shipment),
            timeline=[_entry(entry, order.currency) for entry in progress.timeline],
        )

    def json(self) -> bytes:
        """As JSON; the same document gives the same bytes."""
        return _encoder.encode(self)


def _item(item: contracts.Item, currency: str) -> Item:
    return Item(
        sku=item.sku,
        name=item.name,
        quantity=item.quantity,
        unit_price=money.format_amount(item.unit_price, currency),
        tax_rate=item.tax_rate,
        total=money.format_amount(item.total, currency),
    )


def _address(address: contracts.Address) -> Address:
    return Address(
        line1=address.line1,
        line2=address.line2,
        city=address.city,
        state=address.state,
        postal_code=address.shown_postal_code,
        country=address.country,
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


def _shipment(shipment: contracts.ShipmentDetails | None) -> Shipment | None:
    if shipment is None:
        return None
    return Shipment(carrier=shipment.carrier, tracking_number=shipment.tracking_number)


def _entry(entry: domain.TimelineEntry, currency: str) -> Entry:
    detail: dict[str, Any] = msgspec.to_builtins(entry.detail) if entry.detail else {}
    if "amount" in detail:
        detail["amount"] = money.format_amount(detail["amount"], currency)
    return Entry(type=entry.type, time=entry.time, event_id=entry.event_id, detail=detail)
