"""The business that all peers share: documents, prices and events.

It uses no framework, database or broker. Amounts are integer minor units inside and decimal strings outside.
"""

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, EmailStr, Field, model_validator
from uuid_utils.compat import uuid7

# Requests: strictly parsed, with limits on every field

Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Code = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
Locale = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")]
Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Price = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,7})(\.[0-9]{2,3})?$")]
Rate = Annotated[str, Field(pattern=r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$")]
Token = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$")]


class _Read(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class NewCustomer(_Read):
    """The customer, whom the mails go to."""

    name: Text
    email: EmailStr
    locale: Locale | None = None


class NewAddress(_Read):
    """The address that the parcel goes to."""

    line1: Text
    line2: Text | None = None
    city: Text
    state: Text | None = None
    postal_code: Code
    country: Country


class NewItem(_Read):
    """One line as the merchant prices it."""

    sku: Code
    name: Text
    quantity: Annotated[int, Field(ge=1, le=100_000)]
    unit_price: Price
    tax_rate: Rate = "0"


class NewOrder(_Read):
    """An order as the merchant's backend places it."""

    reference: Text | None = None
    customer: NewCustomer
    shipping_address: NewAddress
    currency: Currency
    items: Annotated[list[NewItem], Field(min_length=1, max_length=100)]
    payment_method: Token

    @model_validator(mode="after")
    def _prices_have_the_decimals_of_the_currency(self) -> "NewOrder":
        decimals = decimals_of(self.currency)
        for item in self.items:
            if len(item.unit_price.partition(".")[2]) != decimals:
                raise ValueError(f"A price in {self.currency} has {decimals} decimals.")
        return self


# Orders and prices

_OTHER_DECIMALS: Final = {
    **dict.fromkeys("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF".split(), 0),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
}


def decimals_of(currency: str) -> int:
    """Returns the number of decimals of a currency (ISO 4217, "minor unit")."""
    return _OTHER_DECIMALS.get(currency, 2)


def amount(minor: int, currency: str) -> str:
    """Formats minor units as a decimal string: 1990 in BRL is "19.90"."""
    decimals = decimals_of(currency)
    digits = str(minor).zfill(decimals + 1)
    return f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits


class Customer(BaseModel):
    """The customer."""

    name: str
    email: str
    locale: str | None


class Address(BaseModel):
    """The address that the parcel goes to."""

    line1: str
    line2: str | None
    city: str
    state: str | None
    postal_code: str
    country: str


class Item(BaseModel):
    """A priced line. `total` includes its tax, rounded half up."""

    sku: str
    name: str
    quantity: int
    unit_price: int
    tax_rate: str
    subtotal: int
    tax: int
    total: int

    @classmethod
    def priced(cls, new: NewItem) -> "Item":
        """Computes the amounts of a line."""
        unit_price = int(new.unit_price.replace(".", ""))
        subtotal = unit_price * new.quantity
        tax = int((subtotal * Decimal(new.tax_rate)).quantize(Decimal(1), rounding=ROUND_HALF_UP))
        return cls(
            sku=new.sku,
            name=new.name,
            quantity=new.quantity,
            unit_price=unit_price,
            tax_rate=new.tax_rate,
            subtotal=subtotal,
            tax=tax,
            total=subtotal + tax,
        )


class Order(BaseModel):
    """An accepted order, as every event carries it."""

    id: UUID
    created_at: datetime
    reference: str | None
    customer: Customer
    shipping_address: Address
    currency: str
    items: list[Item]
    subtotal: int
    tax: int
    total: int
    payment_method: str

    @classmethod
    def placed(cls, new: NewOrder) -> "Order":
        """Prices the order."""
        items = [Item.priced(item) for item in new.items]
        return cls(
            id=uuid7(),
            created_at=datetime.now(UTC),
            reference=new.reference,
            customer=Customer(**dict(new.customer)),
            shipping_address=Address(**dict(new.shipping_address)),
            currency=new.currency,
            items=items,
            subtotal=sum(item.subtotal for item in items),
            tax=sum(item.tax for item in items),
            total=sum(item.total for item in items),
            payment_method=new.payment_method,
        )


# Events


class Invoice(BaseModel):
    """The invoice, over the order's total."""

    number: str
    issued_at: datetime = Field(default_factory=lambda: datetime.now(UTC))


class Payment(BaseModel):
    """The captured payment, over the order's total."""

    id: UUID = Field(default_factory=uuid7)
    provider_reference: str
    amount: int
    captured_at: datetime = Field(default_factory=lambda: datetime.now(UTC))


class Shipment(BaseModel):
    """The booked parcel."""

    id: UUID = Field(default_factory=uuid7)
    carrier: str
    tracking_number: str
    booked_at: datetime = Field(default_factory=lambda: datetime.now(UTC))


class Placed(BaseModel):
    """The data of ORDER_CREATED. Each later event adds to it."""

    order: Order


class Invoiced(Placed):
    """The data of INVOICE_CREATED."""

    invoice: Invoice


class Paid(Invoiced):
    """The data of PAYMENT_CONFIRMED."""

    payment: Payment


class Dispatched(Paid):
    """The data of SHIPPED."""

    shipment: Shipment


class Envelope(BaseModel):
    """The attributes of every event, named as in CloudEvents. `subject` is the order's id."""

    id: UUID = Field(default_factory=uuid7)
    specversion: Literal["1.0"] = "1.0"
    type: str
    subject: UUID
    time: datetime = Field(default_factory=lambda: datetime.now(UTC))


class OrderCreated(Envelope):
    """The order was accepted."""

    type: Literal["ORDER_CREATED"] = "ORDER_CREATED"
    source: str = "/services/order"
    data: Placed


class InvoiceCreated(Envelope):
    """The invoice was issued."""

    type: Literal["INVOICE_CREATED"] = "INVOICE_CREATED"
    source: str = "/services/invoice"
    data: Invoiced


class PaymentConfirmed(Envelope):
    """The payment was captured."""

    type: Literal["PAYMENT_CONFIRMED"] = "PAYMENT_CONFIRMED"
    source: str = "/services/billing"
    data: Paid


class Shipped(Envelope):
    """The parcel is on its way."""

    type: Literal["SHIPPED"] = "SHIPPED"
    source: str = "/services/shipment"
    data: Dispatched


Event = OrderCreated | InvoiceCreated | PaymentConfirmed | Shipped
AnyEvent = Annotated[Event, Field(discriminator="type")]

TYPES: Final = ("ORDER_CREATED", "INVOICE_CREATED", "PAYMENT_CONFIRMED", "SHIPPED")
"""In order of rank. An order's status is the furthest event that it has reached."""

LISTENERS: Final = {
    "order": TYPES[1:],
    "invoice": TYPES[:1],
    "billing": TYPES[1:2],
    "shipment": TYPES[2:3],
    "email": TYPES,
}
"""The events that each service consumes."""


def before(status: str) -> tuple[str, ...]:
    """Returns the statuses from which an order may move to this one."""
    return TYPES[: TYPES.index(status)]


def invoice_number(year: int, count: int) -> str:
    """Formats an invoice number from the year and the count in it."""
    return f"{year}-{count:06d}"


def shipment_of(order: Order) -> Shipment:
    """Returns the simulated carrier's answer. It accepts every parcel.

    The tracking number follows UPU S10: two letters, eight digits, a check digit and the country.
    """
    digits = f"{order.id.int % 10**8:08d}"
    weights = (8, 6, 4, 2, 3, 5, 9, 7)
    check = 11 - sum(weight * int(digit) for weight, digit in zip(weights, digits, strict=True)) % 11
    check = {10: 0, 11: 5}.get(check, check)
    return Shipment(carrier="Simulated Post", tracking_number=f"RR{digits}{check}BR")


# Answers


class ItemDocument(BaseModel):
    """A line, as the API shows it."""

    sku: str
    name: str
    quantity: int
    unit_price: str
    tax_rate: str
    total: str


class Entry(BaseModel):
    """A line of the order's timeline."""

    type: str
    time: datetime
    event_id: UUID


class OrderDocument(BaseModel):
    """An order with its status and timeline, as the API shows it."""

    id: UUID
    reference: str | None
    status: str
    created_at: datetime
    currency: str
    subtotal: str
    tax: str
    total: str
    items: list[ItemDocument]
    customer: Customer
    shipping_address: Address
    timeline: list[Entry]

    @classmethod
    def of(cls, created: OrderCreated) -> "OrderDocument":
        """Makes the document of a new order."""
        order = created.data.order
        return cls(
            id=order.id,
            reference=order.reference,
            status=created.type,
            created_at=order.created_at,
            currency=order.currency,
            subtotal=amount(order.subtotal, order.currency),
            tax=amount(order.tax, order.currency),
            total=amount(order.total, order.currency),
            items=[
                ItemDocument(
                    sku=item.sku,
                    name=item.name,
                    quantity=item.quantity,
                    unit_price=amount(item.unit_price, order.currency),
                    tax_rate=item.tax_rate,
                    total=amount(item.total, order.currency),
                )
                for item in order.items
            ],
            customer=order.customer,
            shipping_address=order.shipping_address,
            timeline=[Entry(type=created.type, time=created.time, event_id=created.id)],
        )
