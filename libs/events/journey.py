"""The journey of an order: its stages, their deadlines, and the ways through them.

This table is the one place where they stand. Ranks and statuses, timelines, the audit's legal ways and ends,
the deadlines of `orderflow stuck`, the demo and the tables of docs/architecture.md derive from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from events.contracts import (
    AnyMilestone,
    DelayStage,
    InvoiceCreated,
    OrderCreated,
    PaymentConfirmed,
    PaymentFailed,
    PaymentRefunded,
    ShipmentError,
    Shipped,
    type_of,
)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: a service takes up the milestone that begins it, and announces one of those that end it."""

    name: DelayStage
    service: str
    begins: type[AnyMilestone]
    ends: tuple[type[AnyMilestone], ...]
    """In the order of their ranks."""
    deadline: timedelta
    """An order that stays in the stage for longer is stuck."""
    asks: str | None = None
    """The third party that the service asks."""


INVOICE: Final = Stage("invoice", "invoice", OrderCreated, (InvoiceCreated,), timedelta(minutes=2))
PAYMENT: Final = Stage(
    "payment",
    "billing",
    InvoiceCreated,
    (PaymentFailed, PaymentConfirmed),
    timedelta(minutes=5),
    asks="payment provider",
)
SHIPMENT: Final = Stage(
    "shipment",
    "shipment",
    PaymentConfirmed,
    (ShipmentError, Shipped),
    timedelta(minutes=5),
    asks="carrier",
)
REFUND: Final = Stage(
    "refund",
    "billing",
    ShipmentError,
    (PaymentRefunded,),
    timedelta(minutes=5),
    asks="payment provider",
)

STAGES: Final = (INVOICE, PAYMENT, SHIPMENT, REFUND)
"""In the order in which an order goes through them."""
BEGINNING: Final = OrderCreated
"""The first milestone of every order."""
MAIL_DEADLINE: Final = timedelta(minutes=30)
"""How long a mail may wait: a server that greylists takes it after a quarter of an hour at most."""

MILESTONES: Final[tuple[type[AnyMilestone], ...]] = (
    BEGINNING,
    *(end for stage in STAGES for end in stage.ends),
)
"""By rank: an order's status is the furthest milestone that it has reached."""
RANKS: Final[Mapping[str, int]] = {type_of(event): rank for rank, event in enumerate(MILESTONES)}
"""Rank of every milestone's type: `ORDER_CREATED` is 0."""
DEADLINES: Final[Mapping[str, timedelta]] = {type_of(stage.begins): stage.deadline for stage in STAGES}
"""How long an order may stay at each status that is not an end."""
ENDS: Final = tuple(status for status in RANKS if status not in DEADLINES)
"""The statuses at which an order comes to its end."""


def _ways(after: type[AnyMilestone]) -> list[tuple[str, ...]]:
    nexts = [end for stage in STAGES if stage.begins is after for end in stage.ends]
    onward = [way for end in nexts for way in _ways(end)] or [()]
    return [(type_of(after), *way) for way in onward]


WAYS: Final[Mapping[str, tuple[str, ...]]] = {way[-1]: way for way in _ways(BEGINNING)}
"""The legal ways of an order: the milestones that it has gone through, by the status at its end."""
ALTERNATIVES: Final = tuple(
    tuple(type_of(end) for end in stage.ends) for stage in STAGES if len(stage.ends) > 1
)
"""Milestones of which an order reaches one at most."""

_BY_NAME: Final[Mapping[str, Stage]] = {stage.name: stage for stage in STAGES}
_BY_WORK: Final = {(stage.service, type_of(stage.begins)): stage for stage in STAGES}


def stage_begun_by(event_type: str, service: str) -> Stage | None:
    """The stage that a service is in while it has not handled an event of this type; None for no stage."""
    return _BY_WORK.get((service, event_type))


def has_passed(stage: str, types: Sequence[str]) -> bool:
    """Whether an order with these milestones has left the stage behind, or has come to its end."""
    passed = min(RANKS[type_of(end)] for end in _BY_NAME[stage].ends)
    return any(event_type in ENDS or RANKS[event_type] >= passed for event_type in types)


def place_of(stage: str) -> int:
    """The stage's place in the journey."""
    return STAGES.index(_BY_NAME[stage])
