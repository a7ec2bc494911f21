"""The kinds of waiting: a description of each, and advice for the person on call."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of waiting."""

    description: str
    """A template with `{service}` and `{type}`."""
    advice: str
    """A template with `{service}`, `{order}` and `{id}`."""


KINDS: Final[Mapping[str, Kind]] = {
    "publishing": Kind(
        "{service} has not published {type} yet",
        "Check that {service} can reach the broker. The event is then published by itself.",
    ),
    "handling": Kind(
        "{type} was published, but {service} has not handled it",
        "Check that {service} runs. 'reconcile' sends lost events again; to deliver it now: "
        "orderflow replay --service {service} --order {order} --since 30d",
    ),
    "retry": Kind(
        "{service} failed to handle {type} and will retry it",
        "It is tried eight times in all. For the whole event and its error: orderflow dead show {id}",
    ),
    "dead": Kind(
        "{type} is dead at {service}: it is not retried",
        "Fix the cause, then: orderflow dead replay {id}",
    ),
    "discarded": Kind(
        "an operator discarded {type} at {service}",
        "Decide by hand what happens to the order. For who discarded it and why: orderflow dead show {id}",
    ),
    "payment": Kind(
        "the payment provider has not confirmed the payment's outcome",
        "Check that billing can reach the provider and that its API key is valid. It asks again by itself.",
    ),
    "refund": Kind(
        "the payment provider has not confirmed the refund's outcome",
        "Check that billing can reach the provider and that its API key is valid. It asks again by itself.",
    ),
    "booking": Kind(
        "the carrier has not confirmed the booking",
        "Check that shipment can reach the carrier. It asks again by itself.",
    ),
    "mail": Kind(
        "the mail server has not accepted the mail about {type}",
        "Check the mail server. The mail is sent again by itself; to send it now: orderflow dead replay {id}",
    ),
    "mail given up": Kind(
        "the mail about {type} was given up because the mail server kept deferring it",
        "It is not sent any more. Tell the customer in another way, and have the mail server checked.",
    ),
    "dead work": Kind(
        "{service}'s work ({type}) is dead: it is not retried",
        "Fix the cause, then: orderflow dead replay {id}",
    ),
    "nothing": Kind(
        "it waits for no known event or work",
        "An event may be lost. Run 'orderflow audit' to find where.",
    ),
}


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event or a piece of work that an order waits for."""

    kind: str
    """A key of KINDS."""
    service: str
    type: str
    """The event's type, or the kind of work: payment, refund, booking; of a mail, its stage."""
    id: UUID | None
    """The id of the event or of the row of work."""
    since: datetime
    attempts: int
    """The number of failed attempts."""
    error: str | None
    """The last attempt's error."""
    next_try: datetime | None
    """The earliest time of the next automatic try; None if there is none."""

    def description(self) -> str:
        """The kind's description, for this service and type."""
        return KINDS[self.kind].description.format(service=self.service, type=self.type)

    def advice(self, order_id: UUID) -> str:
        """The kind's advice, for this order."""
        return KINDS[self.kind].advice.format(service=self.service, order=order_id, id=self.id)


@dataclass(frozen=True, slots=True)
class StuckOrder:
    """An order that is delayed or late, or whose mails are."""

    id: UUID
    reference: str | None
    status: str
    since: datetime
    """When the order reached this status; for late mails, when the first was written."""
    waits_for: tuple[Waiting, ...]
