"""The contracts of the events that are not published yet: an order's life after it was placed.

They have their names and shapes here, so that `events.contracts` needs no third version for them. No service
publishes them and none listens to them: a process of this version leaves such an event to a newer one. A type
moves to `events.contracts` with the service that publishes it.
"""

from datetime import date
from typing import Annotated, Final, Literal
from uuid import UUID

from msgspec import Meta

from events.contracts import (
    AboutOrder,
    Amount,
    Attempt,
    Billed,
    Cause,
    Code,
    Email,
    Event,
    Fact,
    LineId,
    PaymentDetails,
    PositiveAmount,
    Quantity,
    RefundedLine,
    Seller,
    Sentence,
    Text,
    Timestamp,
)

CancellationReason = Literal[
    "customer_changed_mind",
    "ordered_by_mistake",
    "duplicate_order",
    "out_of_stock",
    "suspected_fraud",
    "withdrawal",
    "other",
]
RefundReason = Literal[
    "returned", "damaged", "not_received", "wrong_item", "goodwill", "price_correction", "other"
]
Lines = Annotated[tuple[RefundedLine, ...], Meta(min_length=1, max_length=101)]


class PaymentRequest(Fact, frozen=True, kw_only=True):
    """A further payment of an order whose latest payment failed or waits for the customer."""

    attempt: Annotated[int, Meta(ge=2, le=100)]
    payment_method: Code
    """The payment provider's token, never card data."""
    requested_at: Timestamp


class PaymentAction(Fact, frozen=True, kw_only=True):
    """What the customer has to do before the payment can be captured."""

    payment_id: Code
    attempt: Attempt
    kind: Literal["authentication"]
    """3-D Secure. The mail links to a page of ours that finds the provider's address: no event holds it."""
    expires_at: Timestamp


class PaymentExpiry(Fact, frozen=True, kw_only=True):
    """No payment of the order was captured in time, and none can be any more."""

    attempts: Attempt
    """How many payments were tried."""
    expired_at: Timestamp


class Cancellation(Fact, frozen=True, kw_only=True):
    """A request to cancel an order."""

    id: UUID
    reason: CancellationReason
    note: Sentence | None = None
    requested_at: Timestamp


class RequestedLine(Fact, frozen=True, kw_only=True):
    """How much of a line is to be refunded, in units of 10 ** -`quantity_decimals`."""

    id: LineId
    quantity: Quantity
    quantity_decimals: Annotated[int, Meta(ge=0, le=3)] = 0


class RefundRequest(Fact, frozen=True, kw_only=True):
    """A request to refund an amount, or quantities of lines: exactly one of `amount` and `lines` is given."""

    id: UUID
    reason: RefundReason
    note: Sentence | None = None
    amount: PositiveAmount | None = None
    lines: Annotated[tuple[RequestedLine, ...], Meta(max_length=101)] = ()
    requested_at: Timestamp


class FailedRefund(Fact, frozen=True, kw_only=True):
    """A refund that the provider did not make, or took back. An operator decides what follows."""

    id: Code
    generation: Annotated[int, Meta(ge=1, le=1000)] = 1
    """As in RefundDetails. A failure stands above a refund of the same generation, whichever comes first."""
    request_id: UUID | None = None
    """The REFUND_REQUESTED that asked for it, if one did."""
    cause: Code
    """As in RefundDetails."""
    provider_reference: Text | None = None
    """The provider's id of the refund, if the provider had accepted it."""
    amount: PositiveAmount
    failed_at: Timestamp
    given_up: bool = False
    """Whether it is not tried again: the amount can be refunded otherwise."""


class CreditNoteDetails(Fact, frozen=True, kw_only=True):
    """A credit note: it takes back a part of an invoice, or all of it. `total = subtotal + tax`."""

    number: Code
    """Gapless per year: `CN-2026-000001`."""
    issued_at: Timestamp
    issued_on: date
    """The day of issue in the seller's time zone."""
    seller: Seller
    refund_id: Code | None = None
    """The refund that it documents. None if it takes back what is left of a cancelled order's invoice."""
    lines: Lines
    subtotal: Amount
    tax: Amount
    total: PositiveAmount


class Dispute(Fact, frozen=True, kw_only=True):
    """The customer's bank asks for a payment back. The state with the latest `changed_at` holds."""

    id: Code
    payment_id: Code
    amount: PositiveAmount
    code: Code
    """The provider's code of the reason, such as `fraudulent`."""
    state: Literal["open", "won", "lost"]
    """`won` if the shop keeps the money, also after a mere inquiry."""
    changed_at: Timestamp


class Withdrawal(Fact, frozen=True, kw_only=True):
    """The consumer's declaration to withdraw from the contract (EU Directive 2011/83, Article 11a)."""

    id: UUID
    name: Text | None = None
    """Who declares it, if it is not the customer's name."""
    email: Email | None = None
    """Where the acknowledgement goes, if it is not the customer's address."""
    lines: Annotated[tuple[RequestedLine, ...], Meta(max_length=101)] = ()
    """What is withdrawn from. Empty: the whole order."""
    note: Sentence | None = None
    declared_at: Timestamp


class PaymentAsked(AboutOrder, tag_field="status", tag="PAYMENT_REQUESTED", frozen=True, kw_only=True):
    """The shop asks for a further payment."""

    request: PaymentRequest


class ActionRequired(Billed, tag_field="status", tag="PAYMENT_ACTION_REQUIRED", frozen=True, kw_only=True):
    """The customer has to act before the payment can be captured."""

    action: PaymentAction


class Expired(Billed, tag_field="status", tag="PAYMENT_EXPIRED", frozen=True, kw_only=True):
    """No payment was captured in time."""

    expiry: PaymentExpiry


class CancellationAsked(AboutOrder, frozen=True, kw_only=True):
    """The shop or its customer asks to cancel the order."""

    cancellation: Cancellation


class Cancelled(AboutOrder, tag_field="status", tag="ORDER_CANCELLED", frozen=True, kw_only=True):
    """Nothing will be shipped. What was paid is refunded next."""

    cancellation: Cancellation | None = None
    """None where no request led to it: the payment expired."""
    cancelled_at: Timestamp


class NotCancelled(AboutOrder, frozen=True, kw_only=True):
    """The cancellation came too late."""

    cancellation: Cancellation
    reason: Cause


class RefundAsked(AboutOrder, frozen=True, kw_only=True):
    """The shop asks to give money back."""

    request: RefundRequest


class NotRefunded(AboutOrder, frozen=True, kw_only=True):
    """The refund was refused: more than is left of the payment, or a disputed payment."""

    request: RefundRequest
    reason: Cause


class RefundNotMade(Billed, frozen=True, kw_only=True):
    """The provider did not make the refund."""

    payment: PaymentDetails
    refund: FailedRefund
    reason: Cause


class Credited(Billed, frozen=True, kw_only=True):
    """A credit note was issued."""

    credit_note: CreditNoteDetails


class Disputed(Billed, frozen=True, kw_only=True):
    """The customer's bank asks for a payment back, or has decided."""

    dispute: Dispute


class Withdrawn(AboutOrder, frozen=True, kw_only=True):
    """The consumer withdraws from the contract."""

    withdrawal: Withdrawal


class PaymentRequested(Event[PaymentAsked], tag="PAYMENT_REQUESTED", frozen=True, kw_only=True):
    """A further payment was asked for."""

    PUBLISHERS = ("order",)


class PaymentActionRequired(Event[ActionRequired], tag="PAYMENT_ACTION_REQUIRED", frozen=True, kw_only=True):
    """The customer has to authenticate the payment."""

    PUBLISHERS = ("billing",)


class PaymentExpired(Event[Expired], tag="PAYMENT_EXPIRED", frozen=True, kw_only=True):
    """The time to pay is over."""

    PUBLISHERS = ("billing",)


class CancellationRequested(
    Event[CancellationAsked], tag="CANCELLATION_REQUESTED", frozen=True, kw_only=True
):
    """Cancelling was asked for: shipment decides."""

    PUBLISHERS = ("order",)


class OrderCancelled(Event[Cancelled], tag="ORDER_CANCELLED", frozen=True, kw_only=True):
    """The order was cancelled before it was shipped."""

    PUBLISHERS = ("shipment",)


class CancellationRefused(Event[NotCancelled], tag="CANCELLATION_REFUSED", frozen=True, kw_only=True):
    """It is too late to cancel."""

    PUBLISHERS = ("shipment",)


class RefundRequested(Event[RefundAsked], tag="REFUND_REQUESTED", frozen=True, kw_only=True):
    """A refund was asked for: billing decides."""

    PUBLISHERS = ("order",)


class RefundRefused(Event[NotRefunded], tag="REFUND_REFUSED", frozen=True, kw_only=True):
    """The refund was refused. The reason says why."""

    PUBLISHERS = ("billing",)


class RefundFailed(Event[RefundNotMade], tag="REFUND_FAILED", frozen=True, kw_only=True):
    """The refund was not made. An operator decides what follows."""

    PUBLISHERS = ("billing",)


class CreditNoteIssued(Event[Credited], tag="CREDIT_NOTE_ISSUED", frozen=True, kw_only=True):
    """A credit note was issued."""

    PUBLISHERS = ("invoice",)


class PaymentDisputed(Event[Disputed], tag="PAYMENT_DISPUTED", frozen=True, kw_only=True):
    """A payment is disputed at the customer's bank."""

    PUBLISHERS = ("billing",)


class WithdrawalDeclared(Event[Withdrawn], tag="WITHDRAWAL_DECLARED", frozen=True, kw_only=True):
    """The consumer has declared to withdraw."""

    PUBLISHERS = ("order",)


LATER_EVENTS: Final = (
    PaymentRequested,
    PaymentActionRequired,
    PaymentExpired,
    CancellationRequested,
    OrderCancelled,
    CancellationRefused,
    RefundRequested,
    RefundRefused,
    RefundFailed,
    CreditNoteIssued,
    PaymentDisputed,
    WithdrawalDeclared,
)
"""Every type that no service publishes yet."""
