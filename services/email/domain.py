"""What a mail is: which one tells of which event, its subject, its identity, and how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self
from uuid import UUID

from events import limits
from events.contracts import AnyMilestone, Order, Reason, type_of
from events.journey import RANKS

SUBJECTS: Final[Mapping[str, str]] = {
    "ORDER_CREATED": "We have your order{reference}",
    "INVOICE_CREATED": "The invoice for your order{reference}",
    "PAYMENT_FAILED": "The payment for your order{reference} did not go through",
    "PAYMENT_CONFIRMED": "We received the payment for your order{reference}",
    "SHIPMENT_ERROR": "We can't deliver your order{reference}",
    "SHIPPED": "Your order{reference} is on its way",
    "PAYMENT_REFUNDED": "Your refund for order{reference}",
}
"""Subject of the mail of every stage."""

_REASONS: Final[Mapping[str, str]] = {
    "payment": "The payment was refused.",
    "shipment": "No parcel can be sent to your address.",
}
"""Said when nobody said more."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to be sent: it tells an order's customer of one event."""

    id: UUID
    """The event's own id."""
    event: AnyMilestone

    @classmethod
    def about(cls, event: AnyMilestone) -> Self:
        """The mail that tells of an event."""
        return cls(event.id, event)

    @property
    def order(self) -> Order:
        """The order that it is about."""
        return self.event.data.order

    @property
    def stage(self) -> str:
        """The stage that it is about: the event's type."""
        return type_of(type(self.event))

    @property
    def recipient(self) -> str:
        """The customer's address, as it was given."""
        return self.order.customer.email

    @property
    def subject(self) -> str:
        """Its subject, with the order's reference if it has one."""
        reference = f" {self.order.reference}" if self.order.reference else ""
        return SUBJECTS[self.stage].format(reference=reference)

    @property
    def name(self) -> str:
        """A name for a file of it. Names sort by the time of the order, then by stage."""
        return f"{self.order.id}-{RANKS[self.stage]}-{self.stage}"

    def message_id(self, domain: str) -> str:
        """Its Message-ID: the same every time, so that a second copy is known to be one."""
        return f"<{self.order.id}.{self.stage}@{domain}>"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a mail ended for good."""

    state: Literal["sent", "refused"]
    answer: str
    """What the mail server said, or why it was not asked."""


def in_plain_words(reason: Reason) -> str:
    """Why an order ended badly, as its customer is told: in the words of the service that decided it."""
    return reason.message or _REASONS[reason.stage]


def is_about_the_amount(reason: Reason) -> bool:
    """Whether no payment method could have paid this amount in this currency."""
    return reason.code in limits.OBSTACLES
