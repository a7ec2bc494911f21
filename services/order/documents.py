"""The JSON documents of the order's API: what it reads, and what it answers.

Reading is strict: unknown fields, other types and text that nobody can read are refused. Every limit is that
of `events.contracts`, so whatever is read here can be announced.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from events import contracts, delays, journey, money
from services.order import domain
from services.order.countries import COUNTRIES
from services.order.mailbox import mailbox
from services.order.text import ONE_LINE, readable

# What is read

_Readable = Annotated[
    str,
    AfterValidator(readable),
    Field(description="One line, not blank.", json_schema_extra={"pattern": ONE_LINE}),
]
Text = Annotated[_Readable, StringConstraints(min_length=1, max_length=200)]
Code = Annotated[_Readable, StringConstraints(min_length=1, max_length=64)]
Email = Annotated[
    str,
    StringConstraints(min_length=3, max_length=254),
    AfterValidator(mailbox),
    Field(json_schema_extra={"format": "email"}),
]
Locale = Annotated[
    str,
    StringConstraints(max_length=64, pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$"),
    Field(examples=["pt-BR"]),
]
Currency = Annotated[
    str, StringConstraints(pattern="^[A-Z]{3}$"), Field(json_schema_extra={"enum": sorted(money.EXPONENTS)})
]
Country = Annotated[
    str, StringConstraints(pattern="^[A-Z]{2}$"), Field(json_schema_extra={"enum": sorted(COUNTRIES)})
]
Price = Annotated[
    str,
    StringConstraints(pattern=r"^(0|[1-9][0-9]{0,11})(\.[0-9]{2,3})?$"),
    Field(description="Net, with exactly the currency's number of decimals.", examples=["19.90"]),
]
Rate = Annotated[
    str,
    StringConstraints(pattern=r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$"),
    Field(description="Decimal fraction from 0 to 1.", examples=["0.17"]),
]
Token = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$"),
    Field(description="The payment provider's token; never card data.", examples=["pm_card_visa"]),
]


class _Read(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class NewCustomer(_Read):
    """Who orders, and where mails go."""

    name: Text
    email: Email
    locale: Locale | None = None


class NewAddress(_Read):
    """Where the parcel goes."""

    line1: Text
    line2: Text | None = None
    city: Text
    state: Text | None = None
    postal_code: Annotated[
        Code | None, Field(description="Required, but for countries that have none.", examples=["01304-001"])
    ] = None
    country: Country


class NewItem(_Read):
    """One line."""

    sku: Code
    name: Text
    quantity: Annotated[int, Field(ge=1, le=100_000)]
    unit_price: Price
    tax_rate: Rate = "0"


_EXAMPLE: Final[dict[str, Any]] = {
    "reference": "WEB-1042",
    "customer": {"name": "Ana Souza", "email": "ana@example.com", "locale": "pt-BR"},
    "shipping_address": {
        "line1": "Rua Augusta 1",
        "city": "São Paulo",
        "postal_code": "01304-001",
        "country": "BR",
    },
    "currency": "BRL",
    "items": [{"sku": "MUG-01", "name": "Mug", "quantity": 2, "unit_price": "19.90", "tax_rate": "0.17"}],
    "payment_method": "pm_card_visa",
}


class NewOrder(_Read):
    """An order as the merchant's backend places it; it vouches for the prices."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    reference: Annotated[Text | None, Field(description="The caller's own number for it.")] = None
    customer: NewCustomer
    shipping_address: NewAddress
    currency: Currency
    items: Annotated[list[NewItem], Field(min_length=1, max_length=100)]
    payment_method: Token

    def fingerprint(self) -> bytes:
        """The same for the same order, however its JSON was written; what is left out equals its default."""
        return sha256(self.model_dump_json(exclude_defaults=True).encode()).digest()

    def place(self, order_id: UUID, created_at: datetime) -> contracts.Order:
        """The order, priced. Raises domain.OrderRefused."""
        return domain.place(
            order_id,
            created_at,
            reference=self.reference,
            customer=contracts.Customer(
                name=self.customer.name, email=self.customer.email, locale=self.customer.locale
            ),
            shipping_address=contracts.Address(
                line1=self.shipping_address.line1,
                line2=self.shipping_address.line2,
                city=self.shipping_address.city,
                state=self.shipping_address.state,
                postal_code=self.shipping_address.postal_code or contracts.NO_POSTAL_CODE,
                country=self.shipping_address.country,
            ),
            currency=self.currency,
            lines=[
                domain.Line(item.sku, item.name, item.quantity, item.unit_price, item.tax_rate)
                for item in self.items
            ],
            payment_method=self.payment_method,
        )


# What is answered: plain dataclasses, which pydantic describes and msgspec writes. Frozen ones would take
# three times as long to make.

_encoder: Final = msgspec.json.Encoder()

Amount = Annotated[
    str, Field(pattern=r"^(0|[1-9][0-9]*)(\.[0-9]{2,3})?$", description="In the order's currency.")
]


@dataclass(slots=True)
class Customer:
    """Who ordered."""

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
    """What the order waits for, once it has waited for over a minute, and since when."""

    stage: contracts.DelayStage
    reason: Cause
    since: datetime


@dataclass(slots=True)
class Invoice:
    """The order's invoice; `GET /invoices/{number}` has it in full."""

    number: str


@dataclass(slots=True)
class Payment:
    """The order's payment; a payment that failed has no id."""

    id: str | None
    status: domain.PaymentStatus


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
    """An order and where it stands. What is not known yet is null."""

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
    payment: Payment | None
    shipment: Shipment | None
    timeline: list[Entry]

    @classmethod
    def of(cls, order: contracts.Order, entries: Sequence[domain.Entry]) -> "Order":
        """The document of an order of which the events have told this."""
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


def _payment(progress: domain.Progress) -> Payment | None:
    if progress.payment_status is None:
        return None
    return Payment(id=progress.payment.id if progress.payment else None, status=progress.payment_status)


def _shipment(shipment: contracts.ShipmentDetails | None) -> Shipment | None:
    if shipment is None:
        return None
    return Shipment(carrier=shipment.carrier, tracking_number=shipment.tracking_number)


def _entry(entry: domain.Entry, currency: str) -> Entry:
    detail: dict[str, Any] = msgspec.to_builtins(entry.news) if entry.news else {}
    if "amount" in detail:
        detail["amount"] = money.format_amount(detail["amount"], currency)
    return Entry(type=entry.type, time=entry.time, event_id=entry.event_id, detail=detail)
