"""The contracts of the events: the vocabulary that the services share.

Every event is a CloudEvent whose data holds everything that the next service needs (event-carried state).
Amounts are integer minor units of the order's currency. Every field is bounded, so the largest legal order
fits in one message. Readers ignore unknown fields; a change that an older reader would misread needs a new
VERSION.

Version 2 gave orders gross prices, discounts, shipping and more (decision 32). The fields that it added have
the meaning of version 1 as their defaults, so the same classes read both versions.
"""

from datetime import UTC, date, datetime
from typing import Annotated, ClassVar, Final, Generic, Literal, Self, TypeVar, get_args
from uuid import UUID

from msgspec import Meta, Struct
from msgspec.structs import force_setattr, replace
from uuid_utils.compat import uuid7

VERSION: Final = 2
"""The version of every event's data; part of `dataschema`."""
READABLE_VERSIONS: Final = (1, 2)
"""The versions that this process reads."""

Text = Annotated[str, Meta(min_length=1, max_length=200)]
Code = Annotated[str, Meta(min_length=1, max_length=64)]
Sentence = Annotated[str, Meta(max_length=500)]
Email = Annotated[str, Meta(min_length=3, max_length=254)]
Country = Annotated[str, Meta(pattern="^[A-Z]{2}$")]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$")]
Amount = Annotated[int, Meta(ge=0, le=99_999_999_999)]
PositiveAmount = Annotated[int, Meta(gt=0, le=99_999_999_999)]
UnitPrice = Annotated[int, Meta(ge=0, le=9_999_999_999_999)]
Quantity = Annotated[int, Meta(ge=1, le=100_000_000)]
Rate = Annotated[str, Meta(pattern=r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$")]
Timestamp = Annotated[datetime, Meta(tz=True)]
LineId = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_.:-]{0,31}$")]
Prices = Literal["net", "gross"]
"""Whether prices and discounts are without tax or with it."""
TaxRounding = Literal["line", "rate"]
"""Whether tax is rounded for each line, or once for all lines of one rate."""
TaxCategory = Literal["S", "Z", "E", "AE", "K", "G", "O", "L", "M"]
"""Standard rate, zero rate, exempt, reverse charge, intra-Community supply, export, outside the scope of tax;
the taxes of the Canary Islands (IGIC), and of Ceuta and Melilla (IPSI).

Codes of UNTDID 5305, as EN 16931 uses them for VAT (BT-151).
"""
MetadataKey = Annotated[str, Meta(pattern="^[A-Za-z0-9_.-]{1,40}$")]
KeyHash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Attempt = Annotated[int, Meta(ge=1, le=100)]
"""Counts an order's payments, from 1."""
FailureStage = Literal["payment", "shipment"]
"""The stages at which an order can fail."""
DelayStage = Literal["invoice", "payment", "shipment", "refund"]
"""The stages in which this version's orders can wait; `events.journey` defines them."""

NO_POSTAL_CODE: Final = "-"
"""The value of `Address.postal_code` where an address has none (decision 20)."""
NO_PROVIDER: Final = "none"
"""The provider of the payment of an order whose total is 0: nothing was charged."""
SHIPPING_LINE: Final = "shipping"
"""The id under which the shipping is refunded. No line has it."""


class Fact(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of an event's data: immutable, and validated when read. Unknown fields are ignored."""


class Customer(Fact, frozen=True, kw_only=True):
    """The customer who ordered, with the address for mails."""

    name: Text
    email: Email
    locale: Code | None = None
    """BCP 47 language tag, such as `pt-BR`."""
    company: Text | None = None
    phone: Code | None = None
    tax_id: Code | None = None
    """The tax id as its country writes it, without separators: `DE136695976`."""


class Address(Fact, frozen=True, kw_only=True):
    """A postal address: where the parcel goes, or where the invoice is addressed to, or the seller's."""

    line1: Text
    city: Text
    postal_code: Code
    """NO_POSTAL_CODE where the address has none. Show `shown_postal_code` to people and carriers."""
    country: Country
    """ISO 3166-1 alpha-2, or XK for Kosovo."""
    line2: Text | None = None
    state: Text | None = None
    name: Text | None = None
    """The recipient, where it is not the customer."""
    company: Text | None = None

    @property
    def shown_postal_code(self) -> str | None:
        """The postal code, or None where the address has none."""
        return None if self.postal_code == NO_POSTAL_CODE else self.postal_code


class Discount(Fact, frozen=True, kw_only=True):
    """A discount that was given on a line or on an order."""

    amount: Amount
    """In the same terms as the prices: without tax if they are net, with tax if they are gross."""
    rate: Rate | None = None
    """The share that was given, if the discount was given as a share."""
    name: Text | None = None
    """What the customer knows it as, such as `SUMMER10`."""


class Taxed(Fact, frozen=True, kw_only=True):
    """Something with a tax of its own. `total = subtotal + tax`."""

    tax_rate: Rate = "0"
    """Decimal fraction as a string: "0.17" is 17 %."""
    tax_category: TaxCategory | None = None
    """None where version 1 placed the order. `category` tells it for every order."""
    exemption_reason: Text | None = None
    """Why the tax rate is 0, in words for the invoice."""
    subtotal: Amount
    """Net, after all discounts."""
    tax: Amount
    total: Amount

    @property
    def category(self) -> TaxCategory:
        """The tax category; where none was given, it follows from the rate."""
        return self.tax_category or ("S" if self.tax_rate.strip("0.") else "Z")


class Item(Taxed, frozen=True, kw_only=True):
    """One line of an order.

    The price is `unit_price * quantity`, rounded half up once, to the minor unit. Less both discounts it is
    `subtotal` if prices are net, or `total` if they are gross.
    """

    id: LineId | None = None
    """Names the line within its order. None in version 1: its place (`1`, `2`, …) stands for it there."""
    sku: Code
    name: Text
    quantity: Quantity
    """In units of 10 ** -`quantity_decimals`: 125 with three decimals is 0.125."""
    quantity_decimals: Annotated[int, Meta(ge=0, le=3)] = 0
    unit_price: UnitPrice
    """In minor units, or in units of 10 ** -`unit_price_decimals` of the currency."""
    unit_price_decimals: Annotated[int, Meta(ge=0, le=4)] | None = None
    """Given only where the unit price has more decimals than the currency."""
    discount: Discount | None = None
    """The discount on this line."""
    order_discount: Amount = 0
    """The line's share of the discount on the order."""


class Shipping(Taxed, frozen=True, kw_only=True):
    """What the shipping costs. No discount applies; `price` is `subtotal` if prices are net, else `total`."""

    name: Text = "Shipping"
    price: Amount


class Order(Fact, frozen=True, kw_only=True):
    """An accepted order. Every event carries it unchanged.

    `subtotal`, `tax` and `total` are the sums of the lines and the shipping.
    """

    id: UUID
    created_at: Timestamp
    reference: Text | None = None
    """The caller's own number of the order."""
    customer: Customer
    shipping_address: Address
    billing_address: Address | None = None
    """Where the invoice is addressed to, if not to the shipping address."""
    currency: Currency
    prices: Prices = "net"
    tax_rounding: TaxRounding = "line"
    items: Annotated[tuple[Item, ...], Meta(min_length=1, max_length=100)]
    discount: Discount | None = None
    """The discount on the order: the sum of the items' `order_discount`."""
    shipping: Shipping | None = None
    subtotal: Amount
    tax: Amount
    total: Amount
    reverse_charge: bool = False
    """Whether the customer owes the tax (for instance Article 196 of the EU's VAT Directive)."""
    note: Sentence | None = None
    """What the customer or the shop wants to have said on the invoice."""
    metadata: Annotated[dict[MetadataKey, Text], Meta(max_length=20)] = {}
    """The caller's own data. Orderflow only stores it and hands it on."""
    key_hash: KeyHash | None = None
    """SHA-256 of the request's `Idempotency-Key` in hexadecimal, if there was one; never the key itself.

    The payment provider stores it with the charge. After a restore it shows which charges belong to one
    request, even if the restored database lacks the first order of that request.
    """
    payment_method: Code | None = None
    """Only in version 1; `Placed` has it since. An event that is read moves it there."""

    @property
    def taxed(self) -> tuple[Taxed, ...]:
        """The parts that have a tax of their own: the lines, then the shipping if there is one."""
        return (*self.items, self.shipping) if self.shipping else self.items

    @property
    def billed_to(self) -> Address:
        """Where the invoice is addressed to."""
        return self.billing_address or self.shipping_address

    @property
    def recipient(self) -> str:
        """The name of the person who gets the parcel."""
        return self.shipping_address.name or self.customer.name

    @property
    def recipient_company(self) -> str | None:
        """The company on the parcel. It is the customer's only if the customer is the recipient."""
        address = self.shipping_address
        return address.company or (None if address.name else self.customer.company)


class Seller(Fact, frozen=True, kw_only=True):
    """Who sells: the issuer of the invoice."""

    name: Text
    address: Address | None = None
    email: Email | None = None
    tax_id: Code | None = None
    registration: Text | None = None
    """Number and place of the company's registration, such as `HRB 12345, Berlin`."""
    time_zone: Code = "UTC"
    """IANA time zone: dates of invoices and the years of their numbers are of this zone."""


class InvoiceDetails(Fact, frozen=True, kw_only=True):
    """The invoice of an order, over the order's total."""

    number: Code
    """Gapless per year: `2026-000001`."""
    issued_at: Timestamp
    issued_on: date | None = None
    """The day of issue in the seller's time zone. None where version 1 issued it: then it is UTC's."""
    seller: Seller | None = None
    """None where version 1 issued the invoice."""


class PaymentDetails(Fact, frozen=True, kw_only=True):
    """A captured payment over the order's total."""

    id: Code
    """Our id. The idempotency key at the provider is this and a number: `<id>-1` at first."""
    provider: Code
    """NO_PROVIDER where the total is 0, so that nothing had to be charged."""
    provider_reference: Text
    """The provider's id of the charge; `none` where nothing had to be charged."""
    amount: Amount
    captured_at: Timestamp
    attempt: Attempt = 1


class RefundedLine(Fact, frozen=True, kw_only=True):
    """What is given back of one line of the order, or of its shipping. `total = subtotal + tax`."""

    id: LineId
    """The line's id, or its place (`1`, `2`, …) in an order of version 1; SHIPPING_LINE for the shipping."""
    quantity: Quantity | None = None
    """In units of 10 ** -`quantity_decimals`. None if an amount was given back, not a quantity."""
    quantity_decimals: Annotated[int, Meta(ge=0, le=3)] = 0
    subtotal: Amount
    tax: Amount
    total: Amount


class RefundDetails(Fact, frozen=True, kw_only=True):
    """A refund: the whole payment, or a part of it."""

    id: Code
    provider_reference: Text
    """The provider's id of the refund; for a refund by hand, the reference that the operator gave."""
    amount: Amount
    refunded_at: Timestamp
    cause: Code = "shipment_error"
    """What led to it: `shipment_error`, `cancellation`, `request` (REFUND_REQUESTED), `provider` (it was made
    there, not by Orderflow) or `duplicate`.

    A duplicate gives back a second charge for one order: the invoice stays paid, and is not credited.
    """
    by_hand: bool = False
    """Whether a person returned the money, perhaps by another way than the provider."""
    generation: Annotated[int, Meta(ge=1, le=1000)] = 1
    """Counts how often the refund was made anew after the provider had failed it."""
    request_id: UUID | None = None
    """The REFUND_REQUESTED that asked for it, if one did."""
    lines: Annotated[tuple[RefundedLine, ...], Meta(max_length=101)] = ()
    """What is given back per line. Empty for a whole payment."""


class ShipmentDetails(Fact, frozen=True, kw_only=True):
    """A booked parcel."""

    id: Code
    carrier: Text
    tracking_number: Code
    """UPU S10, such as `RR473124829BR`."""
    booked_at: Timestamp


class Reason(Fact, frozen=True, kw_only=True):
    """Why an order failed."""

    code: Code
    message: Sentence
    stage: FailureStage


class Cause(Fact, frozen=True, kw_only=True):
    """Why an order waits, or why a request was refused: a stable code, and a sentence for people."""

    code: Code
    message: Sentence


class Delay(Fact, frozen=True, kw_only=True):
    """An order waits in this stage. Its next milestone of this stage, or of a later one, ends the delay."""

    stage: Code
    """One of DelayStage, or a later addition: readers leave out a delay whose stage they do not know."""
    reason: Cause
    since: Timestamp


class AboutOrder(Fact, frozen=True, kw_only=True):
    """The data of an event: the order's snapshot. Subclasses add the facts."""

    order: Order

    def __post_init__(self) -> None:
        """Drops the payment method that version 1 had in the order."""
        if self.order.payment_method is not None:
            force_setattr(self, "order", replace(self.order, payment_method=None))


class Placed(AboutOrder, tag_field="status", tag="ORDER_CREATED", frozen=True, kw_only=True):
    """An order was validated, priced and persisted."""

    payment_method: Code | None = None
    """The payment provider's token, never card data. None only where the total is 0."""

    def __post_init__(self) -> None:
        if self.order.payment_method is not None:
            force_setattr(self, "payment_method", self.order.payment_method)
            super().__post_init__()
        if self.payment_method is None and self.order.total:
            raise ValueError("An order with a total needs a payment method.")


class Invoiced(Placed, tag="INVOICE_CREATED", frozen=True, kw_only=True):
    """The invoice was issued."""

    invoice: InvoiceDetails


class Billed(AboutOrder, frozen=True, kw_only=True):
    """The data of every event after the payment was tried: the payment method is not needed any more."""

    invoice: InvoiceDetails


class Declined(Billed, tag_field="status", tag="PAYMENT_FAILED", frozen=True, kw_only=True):
    """The provider refused the payment finally. No money was charged."""

    reason: Reason
    attempt: Attempt = 1
    payable_until: Timestamp | None = None
    """Until when the order can be paid with another payment. None if it can't."""


class Paid(Billed, tag_field="status", tag="PAYMENT_CONFIRMED", frozen=True, kw_only=True):
    """The provider captured the order's total, or the total is 0."""

    payment: PaymentDetails


class Undeliverable(Paid, tag="SHIPMENT_ERROR", frozen=True, kw_only=True):
    """The carrier refused the parcel finally."""

    reason: Reason


class Dispatched(Paid, tag="SHIPPED", frozen=True, kw_only=True):
    """The carrier accepted the parcel."""

    shipment: ShipmentDetails


class Refunded(Paid, tag="PAYMENT_REFUNDED", frozen=True, kw_only=True):
    """Money was given back."""

    refund: RefundDetails
    reason: Reason | None = None
    """Why the order failed, if it was refunded because it failed."""


class Delayed(AboutOrder, frozen=True, kw_only=True):
    """The order has waited for over a minute. Its status does not change."""

    delay: Delay


D_co = TypeVar("D_co", bound=AboutOrder, covariant=True)


class Event(Struct, Generic[D_co], frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """A CloudEvents 1.0 envelope; the class is the CloudEvents `type`.

    https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
    """

    PUBLISHERS: ClassVar[tuple[str, ...]]
    """Services that publish it. A milestone has exactly one."""

    id: UUID
    """UUIDv7, made once, when the event is created. An id never has two payloads."""
    specversion: Literal["1.0"]
    source: Code
    """The service that published it: `/services/<name>`."""
    subject: UUID
    """The order's id."""
    time: Timestamp
    dataschema: Code
    """Type and version of the data: `urn:orderflow:ORDER_CREATED:2`."""
    data: D_co

    @classmethod
    def of(cls, data: D_co, publisher: str | None = None) -> Self:  # type: ignore[misc]  # a constructor may take what it stores
        """A new event with this data, a new id and the present time.

        `publisher` is needed for a type that several services publish.
        """
        [service] = (publisher,) if publisher else cls.PUBLISHERS
        return cls(
            id=uuid7(),
            specversion="1.0",
            source=f"/services/{service}",
            subject=data.order.id,
            time=datetime.now(UTC),
            dataschema=schema_of(cls),
            data=data,
        )


class OrderCreated(Event[Placed], tag="ORDER_CREATED", frozen=True, kw_only=True):
    """The order was accepted."""

    PUBLISHERS = ("order",)


class InvoiceCreated(Event[Invoiced], tag="INVOICE_CREATED", frozen=True, kw_only=True):
    """The invoice was issued."""

    PUBLISHERS = ("invoice",)


class PaymentFailed(Event[Declined], tag="PAYMENT_FAILED", frozen=True, kw_only=True):
    """The payment was refused. Final."""

    PUBLISHERS = ("billing",)


class PaymentConfirmed(Event[Paid], tag="PAYMENT_CONFIRMED", frozen=True, kw_only=True):
    """The payment was captured."""

    PUBLISHERS = ("billing",)


class ShipmentError(
    Event[Undeliverable], tag="SHIPMENT_ERROR", frozen=True, kw_only=True, omit_defaults=True
):
    """The parcel can't be sent. The payment is refunded next."""

    PUBLISHERS = ("shipment",)


class Shipped(Event[Dispatched], tag="SHIPPED", frozen=True, kw_only=True):
    """The parcel is on its way. Final."""

    PUBLISHERS = ("shipment",)


class PaymentRefunded(Event[Refunded], tag="PAYMENT_REFUNDED", frozen=True, kw_only=True):
    """The payment was refunded. Final."""

    PUBLISHERS = ("billing",)


class OrderDelayed(Event[Delayed], tag="ORDER_DELAYED", frozen=True, kw_only=True):
    """The order waits: one event per order and reason. It is no status and has no rank."""

    PUBLISHERS = ("invoice", "billing", "shipment")


AnyMilestone = (
    OrderCreated
    | InvoiceCreated
    | PaymentFailed
    | PaymentConfirmed
    | ShipmentError
    | Shipped
    | PaymentRefunded
)
"""An event that advances its order. Its type is a status; `events.journey` has the ranks."""

AnyEvent = AnyMilestone | OrderDelayed

EVENTS: Final[tuple[type[AnyEvent], ...]] = get_args(AnyEvent)
"""Every event type."""


def type_of(event: type[AnyEvent] | type[Event[AboutOrder]]) -> str:
    """The CloudEvents `type` of an event class: `ORDER_CREATED`."""
    return str(event.__struct_config__.tag)


def schema_of(event: type[AnyEvent] | type[Event[AboutOrder]], version: int = VERSION) -> str:
    """The `dataschema` of an event class, at VERSION if no other is given."""
    return f"urn:orderflow:{type_of(event)}:{version}"


TYPES: Final[tuple[str, ...]] = tuple(type_of(event) for event in EVENTS)
"""The CloudEvents `type` of every event."""
