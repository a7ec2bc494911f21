"""The journey of an order: its stages, their deadlines, and the possible ways through them.

Ranks, statuses, timelines, the audit's legal ways, the deadlines of `orderflow stuck`, the demo and the
tables of docs/architecture.md are derived from STAGES.
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
    """One stage: a service handles the milestone that begins it, and publishes one of those that end it."""

    name: DelayStage
    service: str
    begins: type[AnyMilestone]
    ends: tuple[type[AnyMilestone], ...]
    """By rank."""
    deadline: timedelta
    """An order that stays in the stage for longer is stuck."""
    asks: str | None = None
    """The third party that the service calls."""


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
"""In the sequence in which an order passes them."""
BEGINNING: Final = OrderCreated
"""The first milestone of every order."""
MAIL_DEADLINE: Final = timedelta(minutes=30)
"""How long a mail may wait. A greylisting server accepts it after at most 15 minutes."""

MILESTONES: Final[tuple[type[AnyMilestone], ...]] = (
    BEGINNING,
    *(end for stage in STAGES for end in stage.ends),
)
"""By rank. An order's status is the milestone of the highest rank that it has reached."""
RANKS: Final[Mapping[str, int]] = {type_of(event): rank for rank, event in enumerate(MILESTONES)}
"""Rank of every milestone's type: `ORDER_CREATED` is 0."""
DEADLINES: Final[Mapping[str, timedelta]] = {type_of(stage.begins): stage.deadline for stage in STAGES}
"""How long an order may stay at each status that is not final."""
ENDS: Final = tuple(status for status in RANKS if status not in DEADLINES)
"""The final statuses."""


def _ways(after: type[AnyMilestone]) -> list[tuple[str, ...]]:
    nexts = [end for stage in STAGES if stage.begins is after for end in stage.ends]
    onward = [way for end in nexts for way in _ways(end)] or [()]
    return [(type_of(after), *way) for way in onward]


WAYS: Final[Mapping[str, tuple[str, ...]]] = {way[-1]: way for way in _ways(BEGINNING)}
"""The legal ways of an order: the sequence of milestones for each final status."""
ALTERNATIVES: Final = tuple(
    tuple(type_of(end) for end in stage.ends) for stage in STAGES if len(stage.ends) > 1
)
"""Groups of milestones that exclude each other."""

_BY_NAME: Final[Mapping[str, Stage]] = {stage.name: stage for stage in STAGES}
_BY_WORK: Final = {(stage.service, type_of(stage.begins)): stage for stage in STAGES}


def stage_begun_by(event_type: str, service: str) -> Stage | None:
    """The stage that the event begins in this service; None if it begins none."""
    return _BY_WORK.get((service, event_type))


def has_passed(stage: str, types: Sequence[str]) -> bool:
    """Whether an order with these milestones has completed the stage, or is at its end.

    A stage that this version does not know counts as completed.
    """
    if stage not in _BY_NAME:
        return True
    passed = min(RANKS[type_of(end)] for end in _BY_NAME[stage].ends)
    return any(event_type in ENDS or RANKS[event_type] >= passed for event_type in types)


def place_of(stage: str) -> int:
    """The stage's index in STAGES."""
    return STAGES.index(_BY_NAME[stage])
