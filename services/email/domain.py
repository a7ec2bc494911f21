"""Mails: one for each milestone of an order, with its subject, its identity and its outcome."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
"""The subject of the mail of each stage."""

SUBJECTS_WITHOUT_PAYMENT: Final[Mapping[str, str]] = {
    **SUBJECTS,
    "PAYMENT_CONFIRMED": "There is nothing to pay for your order{reference}",
    "PAYMENT_REFUNDED": "Your order{reference} is closed",
}
"""The subjects for an order whose total is 0."""

_REASONS: Final[Mapping[str, str]] = {
    "payment": "The payment was refused.",
    "shipment": "No parcel can be sent to your address.",
}
"""By stage, for a reason without a message."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a mail ended for good."""

    state: Literal["sent", "refused"]
    answer: str
    """The mail server's answer, or why it was not asked."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that tells an order's customer of one event: pending until it has an outcome."""

    id: UUID
    """The id of the event."""
    event: AnyMilestone
    outcome: Outcome | None = None

    @classmethod
    def about(cls, event: AnyMilestone) -> Self:
        """The mail that tells of an event."""
        return cls(event.id, event)

    def settled(self, outcome: Outcome) -> Self:
        """The mail with its outcome."""
        return replace(self, outcome=outcome)

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
        """The customer's address, as the order gives it."""
        return self.order.customer.email

    @property
    def subject(self) -> str:
        """The subject, with the order's reference if there is one."""
        reference = f" {self.order.reference}" if self.order.reference else ""
        subjects = SUBJECTS if self.order.total else SUBJECTS_WITHOUT_PAYMENT
        return subjects[self.stage].format(reference=reference)

    @property
    def name(self) -> str:
        """A unique name, fit for a file. Names sort by the time of the order, then by stage."""
        return f"{self.order.id}-{RANKS[self.stage]}-{self.stage}"

    def message_id(self, domain: str) -> str:
        """The Message-ID. It is the same for every copy, so mail programs can recognize a second one."""
        return f"<{self.order.id}.{self.stage}@{domain}>"


def reason_for_customer(reason: Reason) -> str:
    """Why an order failed, as its customer reads it: the message of the service that decided it."""
    return reason.message or _REASONS[reason.stage]


def is_about_the_amount(reason: Reason) -> bool:
    """Whether no payment method can pay this amount in this currency."""
    return reason.code in limits.OBSTACLES
