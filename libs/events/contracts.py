"""The contracts of the events: the one vocabulary in which the services meet.

Every event is a CloudEvent whose data holds all that the next service needs (event-carried state). Amounts
are integer minor units of the order's currency. Every field is bounded, so the largest legal order fits in
one message. Readers ignore fields they do not know; a change that an older reader would misread needs a
new VERSION.
"""

from datetime import UTC, datetime
from typing import Annotated, ClassVar, Final, Generic, Literal, Self, TypeVar, get_args
from uuid import UUID

from msgspec import Meta, Struct
from uuid_utils.compat import uuid7

VERSION: Final = 1
"""Version of every event's data; part of its `dataschema`."""

Text = Annotated[str, Meta(min_length=1, max_length=200)]
Code = Annotated[str, Meta(min_length=1, max_length=64)]
Sentence = Annotated[str, Meta(max_length=500)]
Email = Annotated[str, Meta(min_length=3, max_length=254)]
Country = Annotated[str, Meta(pattern="^[A-Z]{2}$")]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$")]
Amount = Annotated[int, Meta(ge=0, le=99_999_999_999)]
PositiveAmount = Annotated[int, Meta(gt=0, le=99_999_999_999)]
Quantity = Annotated[int, Meta(ge=1, le=100_000)]
Rate = Annotated[str, Meta(pattern=r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$")]
Timestamp = Annotated[datetime, Meta(tz=True)]
KeyHash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
FailureStage = Literal["payment", "shipment"]
"""Where an order may end badly."""
DelayStage = Literal["invoice", "payment", "shipment", "refund"]
"""Where an order may wait; `events.journey` has the stages."""

NO_POSTAL_CODE: Final = "-"
"""Stands in `Address.postal_code` where an address has none (decision 20)."""


class Fact(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of an event's data: immutable, validated when read, unknown fields ignored."""


class Customer(Fact, frozen=True, kw_only=True):
    """Who ordered, and where mails go."""

    name: Text
    email: Email
    locale: Code | None = None
    """BCP 47 language tag, such as `pt-BR`."""


class Address(Fact, frozen=True, kw_only=True):
    """Where the parcel goes."""

    line1: Text
    city: Text
    postal_code: Code
    """NO_POSTAL_CODE where the address has none. People and carriers are shown `shown_postal_code`."""
    country: Country
    """ISO 3166-1 alpha-2, or XK for Kosovo."""
    line2: Text | None = None
    state: Text | None = None

    @property
    def shown_postal_code(self) -> str | None:
        """The postal code, or None where the address has none."""
        return None if self.postal_code == NO_POSTAL_CODE else self.postal_code


class Item(Fact, frozen=True, kw_only=True):
    """One line of an order. `total = subtotal + tax`; the tax is rounded half up per line."""

    sku: Code
    name: Text
    quantity: Quantity
    unit_price: Amount
    tax_rate: Rate = "0"
    """Decimal fraction as a string: "0.17" is 17 %."""
    subtotal: Amount
    tax: Amount
    total: Amount


class Order(Fact, frozen=True, kw_only=True):
    """An accepted order, as every later event carries it."""

    id: UUID
    created_at: Timestamp
    reference: Text | None = None
    """The caller's own number for it."""
    customer: Customer
    shipping_address: Address
    currency: Currency
    items: Annotated[tuple[Item, ...], Meta(min_length=1, max_length=100)]
    subtotal: Amount
    tax: Amount
    total: PositiveAmount
    payment_method: Code
    """The payment provider's token; never card data."""
    key_hash: KeyHash | None = None
    """SHA-256 of the request's `Idempotency-Key` in hexadecimal, if it had one; never the key itself.

    The payment provider keeps it with the charge. After a restore it tells which charges belong to one
    request, although the database has forgotten the first order that the request made.
    """


class InvoiceDetails(Fact, frozen=True, kw_only=True):
    """The invoice of an order, over the order's total."""

    number: Code
    """Gapless per year: `2026-000001`."""
    issued_at: Timestamp


class PaymentDetails(Fact, frozen=True, kw_only=True):
    """A captured payment over the order's total."""

    id: Code
    """Ours; the provider knows it as the idempotency key."""
    provider: Code
    provider_reference: Text
    """The provider's own id of the charge."""
    amount: PositiveAmount
    captured_at: Timestamp


class RefundDetails(Fact, frozen=True, kw_only=True):
    """Money given back, whole."""

    id: Code
    provider_reference: Text
    """The provider's own id of the refund; of one made by hand, what the operator named."""
    amount: PositiveAmount
    refunded_at: Timestamp
    by_hand: bool = False
    """Whether a person gave the money back, perhaps in another way than it was paid."""


class ShipmentDetails(Fact, frozen=True, kw_only=True):
    """A booked parcel."""

    id: Code
    carrier: Text
    tracking_number: Code
    """UPU S10, such as `RR473124829BR`."""
    booked_at: Timestamp


class Reason(Fact, frozen=True, kw_only=True):
    """Why an order ended badly."""

    code: Code
    message: Sentence
    stage: FailureStage


class Cause(Fact, frozen=True, kw_only=True):
    """Why an order waits: a stable code, and a sentence that follows from it and the stage."""

    code: Code
    message: Sentence


class Delay(Fact, frozen=True, kw_only=True):
    """What an order waits for. The order's next fact of this stage, or of a later one, ends it."""

    stage: DelayStage
    reason: Cause
    since: Timestamp


class AboutOrder(Fact, frozen=True, kw_only=True):
    """The data of an event: the order's snapshot, and what happened."""

    order: Order


class Placed(AboutOrder, tag_field="status", tag="ORDER_CREATED", frozen=True, kw_only=True):
    """An order was validated, priced and persisted."""


class Invoiced(Placed, tag="INVOICE_CREATED", frozen=True, kw_only=True):
    """Its invoice was issued."""

    invoice: InvoiceDetails


class Declined(Invoiced, tag="PAYMENT_FAILED", frozen=True, kw_only=True):
    """The provider refused the payment for good; nothing was charged."""

    reason: Reason


class Paid(Invoiced, tag="PAYMENT_CONFIRMED", frozen=True, kw_only=True):
    """The provider captured the order's total."""

    payment: PaymentDetails


class Undeliverable(Paid, tag="SHIPMENT_ERROR", frozen=True, kw_only=True):
    """The carrier refused the parcel for good."""

    reason: Reason


class Dispatched(Paid, tag="SHIPPED", frozen=True, kw_only=True):
    """The carrier took the parcel."""

    shipment: ShipmentDetails


class Refunded(Undeliverable, tag="PAYMENT_REFUNDED", frozen=True, kw_only=True):
    """The payment was given back, for the reason that the shipment failed."""

    refund: RefundDetails


class Delayed(AboutOrder, frozen=True, kw_only=True):
    """The order has waited for over a minute. This is no status: the order stands where it stood."""

    delay: Delay


D_co = TypeVar("D_co", bound=AboutOrder, covariant=True)


class Event(Struct, Generic[D_co], frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """A CloudEvents 1.0 envelope around one fact; the class is the CloudEvents `type`.

    https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
    """

    PUBLISHERS: ClassVar[tuple[str, ...]]
    """Names of the services that publish it. A milestone has one."""

    id: UUID
    """UUIDv7, made once where the fact is decided. One id means one payload everywhere."""
    specversion: Literal["1.0"]
    source: Code
    """The service that published it: `/services/<name>`."""
    subject: UUID
    """The order's id."""
    time: Timestamp
    dataschema: Code
    """Type and version of the data: `urn:orderflow:ORDER_CREATED:1`."""
    data: D_co

    @classmethod
    def of(cls, data: D_co, publisher: str | None = None) -> Self:  # type: ignore[misc]  # a constructor may take what it stores
        """A new event about the fact: its id and its time are made here.

        `publisher` names the service that publishes it, where there are several.
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
    """The parcel can't be sent; the payment is given back."""

    PUBLISHERS = ("shipment",)


class Shipped(Event[Dispatched], tag="SHIPPED", frozen=True, kw_only=True):
    """The parcel is on its way. Final."""

    PUBLISHERS = ("shipment",)


class PaymentRefunded(Event[Refunded], tag="PAYMENT_REFUNDED", frozen=True, kw_only=True):
    """The payment was given back. Final."""

    PUBLISHERS = ("billing",)


class OrderDelayed(Event[Delayed], tag="ORDER_DELAYED", frozen=True, kw_only=True):
    """The order waits: one event per order and reason. No status, and no rank."""

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
"""An event that takes its order further. Its type is a status; `events.journey` has their ranks."""

AnyEvent = AnyMilestone | OrderDelayed

EVENTS: Final[tuple[type[AnyEvent], ...]] = get_args(AnyEvent)
"""Every event type."""


def type_of(event: type[AnyEvent] | type[Event[AboutOrder]]) -> str:
    """The CloudEvents `type` of an event class: `ORDER_CREATED`."""
    return str(event.__struct_config__.tag)


def schema_of(event: type[AnyEvent] | type[Event[AboutOrder]]) -> str:
    """The `dataschema` of an event class in the version written here."""
    return f"urn:orderflow:{type_of(event)}:{VERSION}"


TYPES: Final[tuple[str, ...]] = tuple(type_of(event) for event in EVENTS)
"""The CloudEvents `type` of every event."""
