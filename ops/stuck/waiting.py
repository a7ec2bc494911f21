"""What an order can wait for, in words, and what helps."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of thing to wait for."""

    words: str
    """With `{service}` and `{type}`."""
    helps: str
    """What to do, with `{service}`, `{order}` and `{id}`."""


KINDS: Final[Mapping[str, Kind]] = {
    "publishing": Kind(
        "{service} has not published {type} yet",
        "Does the broker answer {service}? It is published by itself then.",
    ),
    "handling": Kind(
        "{type} was published, and {service} has not handled it",
        "Does {service} run? 'reconcile' sends again what was lost; to hand it over now: "
        "orderflow replay --service {service} --order {order} --since 30d",
    ),
    "retry": Kind(
        "{service} failed at {type}, and tries it again",
        "It is tried eight times; the error tells what is wrong: orderflow dead show {id}",
    ),
    "dead": Kind(
        "{service} has set {type} aside as dead",
        "Mend the cause, then: orderflow dead replay {id}",
    ),
    "discarded": Kind(
        "a person has discarded {type} at {service}",
        "What becomes of the order is decided by hand: orderflow dead show {id}",
    ),
    "payment": Kind(
        "the payment provider has not told the payment's outcome",
        "Does the provider answer billing, and take its key? It is asked again by itself.",
    ),
    "refund": Kind(
        "the payment provider has not told the refund's outcome",
        "Does the provider answer billing, and take its key? It is asked again by itself.",
    ),
    "booking": Kind(
        "the carrier has not answered",
        "Does the carrier answer shipment? It is asked again by itself.",
    ),
    "mail": Kind(
        "the mail server has not taken the mail about {type}",
        "Does the mail server take mails? It is offered again by itself; now: orderflow dead replay {id}",
    ),
    "mail given up": Kind(
        "the mail server has put off the mail about {type} until it was given up",
        "It is not sent any more: tell the customer in another way, and ask whoever runs the mail server.",
    ),
    "dead work": Kind(
        "{service} has given up its {type}",
        "Mend the cause, then: orderflow dead replay {id}",
    ),
    "nothing": Kind(
        "nothing is left that would carry it on",
        "This should not be: 'orderflow audit' tells more.",
    ),
}


@dataclass(frozen=True, slots=True)
class Waiting:
    """What an order waits for."""

    kind: str
    """A key of KINDS."""
    service: str
    type: str
    """The event's type, or what the work is."""
    id: UUID | None
    """Of the event or the row of work."""
    since: datetime
    attempts: int
    """Failed ones."""
    error: str | None
    """Why the last one failed."""
    next_try: datetime | None
    """When it is tried again by itself, at the earliest; None where that is not planned."""

    def words(self) -> str:
        """In words."""
        return KINDS[self.kind].words.format(service=self.service, type=self.type)

    def helps(self, order_id: UUID) -> str:
        """What helps."""
        return KINDS[self.kind].helps.format(service=self.service, order=order_id, id=self.id)


@dataclass(frozen=True, slots=True)
class StuckOrder:
    """An order that has not moved on in time, or whose mails have not."""

    id: UUID
    reference: str | None
    status: str
    since: datetime
    """When it reached this status."""
    waits_for: tuple[Waiting, ...]
