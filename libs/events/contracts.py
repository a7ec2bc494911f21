"""The contracts of the events: the vocabulary that the services share.

Every event is a CloudEvent whose data holds everything that the next service needs (event-carried state).
Amounts are integer minor units of the order's currency. Every field is bounded, so the largest legal order
fits in one message. Readers ignore unknown fields; a change that an older reader would misread needs a new
VERSION.
"""

from datetime import UTC, datetime
from typing import Annotated, ClassVar, Final, Generic, Literal, Self, TypeVar, get_args
from uuid import UUID

from msgspec import Meta, Struct
from uuid_utils.compat import uuid7

VERSION: Final = 1
"""The version of every event's data; part of `dataschema`."""

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
"""The stages at which an order can fail."""
DelayStage = Literal["invoice", "payment", "shipment", "refund"]
"""The stages in which an order can wait; `events.journey` defines them."""

NO_POSTAL_CODE: Final = "-"
"""The value of `Address.postal_code` where an address has none (decision 20)."""


class Fact(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of an event's data: immutable, and validated when read. Unknown fields are ignored."""


class Customer(Fact, frozen=True, kw_only=True):
    """The customer who ordered, with the address for mails."""

    name: Text
    email: Email
    locale: Code | None = None
    """BCP 47 language tag, such as `pt-BR`."""


class Address(Fact, frozen=True, kw_only=True):
    """Where the parcel goes."""

    line1: Text
    city: Text
    postal_code: Code
    """NO_POSTAL_CODE where the address has none. Show `shown_postal_code` to people and carriers."""
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
    """An accepted order. Every event carries it unchanged."""

    id: UUID
    created_at: Timestamp
    reference: Text | None = None
    """The caller's own number of the order."""
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
    """SHA-256 of the request's `Idempotency-Key` in hexadecimal, if there was one; never the key itself.

    The payment provider stores it with the charge. After a restore it shows which charges belong to one
    request, even if the restored database lacks the first order of that request.
    """


class InvoiceDetails(Fact, frozen=True, kw_only=True):
    """The invoice of an order, over the order's total."""

    number: Code
    """Gapless per year: `2026-000001`."""
    issued_at: Timestamp


class PaymentDetails(Fact, frozen=True, kw_only=True):
    """A captured payment over the order's total."""

    id: Code
    """Our id. The idempotency key at the provider is this and a number: `<id>-1` at first."""
    provider: Code
    provider_reference: Text
    """The provider's id of the charge."""
    amount: PositiveAmount
    captured_at: Timestamp


class RefundDetails(Fact, frozen=True, kw_only=True):
    """A full refund."""

    id: Code
    provider_reference: Text
    """The provider's id of the refund; for a refund by hand, the reference that the operator gave."""
    amount: PositiveAmount
    refunded_at: Timestamp
    by_hand: bool = False
    """Whether a person returned the money, perhaps by another way than the provider."""


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
    """Why an order waits: a stable code, and a sentence made from the code and the stage."""

    code: Code
    message: Sentence


class Delay(Fact, frozen=True, kw_only=True):
    """An order waits in this stage. Its next milestone of this stage, or of a later one, ends the delay."""

    stage: DelayStage
    reason: Cause
    since: Timestamp


class AboutOrder(Fact, frozen=True, kw_only=True):
    """The data of an event: the order's snapshot. Subclasses add the facts."""

    order: Order


class Placed(AboutOrder, tag_field="status", tag="ORDER_CREATED", frozen=True, kw_only=True):
    """An order was validated, priced and persisted."""


class Invoiced(Placed, tag="INVOICE_CREATED", frozen=True, kw_only=True):
    """The invoice was issued."""

    invoice: InvoiceDetails


class Declined(Invoiced, tag="PAYMENT_FAILED", frozen=True, kw_only=True):
    """The provider refused the payment finally. No money was charged."""

    reason: Reason


class Paid(Invoiced, tag="PAYMENT_CONFIRMED", frozen=True, kw_only=True):
    """The provider captured the order's total."""

    payment: PaymentDetails


class Undeliverable(Paid, tag="SHIPMENT_ERROR", frozen=True, kw_only=True):
    """The carrier refused the parcel finally."""

    reason: Reason


class Dispatched(Paid, tag="SHIPPED", frozen=True, kw_only=True):
    """The carrier accepted the parcel."""

    shipment: ShipmentDetails


class Refunded(Undeliverable, tag="PAYMENT_REFUNDED", frozen=True, kw_only=True):
    """The payment was refunded because the shipment failed; `reason` says why."""

    refund: RefundDetails


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
    """Type and version of the data: `urn:orderflow:ORDER_CREATED:1`."""
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


def schema_of(event: type[AnyEvent] | type[Event[AboutOrder]]) -> str:
    """The `dataschema` of an event class at VERSION."""
    return f"urn:orderflow:{type_of(event)}:{VERSION}"


TYPES: Final[tuple[str, ...]] = tuple(type_of(event) for event in EVENTS)
"""The CloudEvents `type` of every event."""
