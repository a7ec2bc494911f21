"""Delays: the ORDER_DELAYED event of work that has waited for over a minute, and its words.

The words depend on the stage and the reason alone. The other side's answer stays in the row's `last_error`,
where only operators see it.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal, TypeAlias, TypeVar

import msgspec

from events.contracts import AboutOrder, Cause, Delay, Delayed, Order, OrderDelayed
from events.journey import Stage, stage_begun_by
from events.retry import Failure

DELAYED_AFTER: Final = 60.0
"""Work that waits for more seconds is announced as a delay of its order."""
MAX_ANNOUNCED: Final = 500
"""Most delays that a runner announces in one transaction."""

WaitReason: TypeAlias = Failure | Literal["backlog", "newer", "dead"]
"""Why work waits: the failure of its last try, or `backlog` (not tried yet), `newer` (only a newer version
can do it), `dead` (given up; it waits for a person)."""

R = TypeVar("R")

DelayFactory: TypeAlias = Callable[[R, WaitReason, datetime], OrderDelayed | None]
"""Makes the event for a waiting row, its reason and since when it waits; None if no order is affected."""

CAUSES: Final[dict[WaitReason, Cause]] = {
    "outage": Cause(
        code="unavailable",
        message="The {asks} does not take requests at the moment. It is asked again until it does.",
    ),
    "unknown": Cause(
        code="no_answer",
        message="The {asks} has not told the outcome yet. It is asked again about the same {stage}.",
    ),
    "postponed": Cause(
        code="postponed", message="The {stage} can't be made at the moment. It is tried again later."
    ),
    "defect": Cause(
        code="failed", message="The {stage} failed for a technical reason. It is tried again by itself."
    ),
    "backlog": Cause(code="not_begun", message="The {stage} has not been begun yet: others come first."),
    "newer": Cause(
        code="upgrade", message="The {stage} waits until an upgrade of the {service} service is complete."
    ),
    "dead": Cause(
        code="set_aside", message="The {stage} could not be made by itself: a person has to look at it."
    ),
}
"""Code and sentence for each reason, with `{stage}`, `{service}` and `{asks}`."""


def cause_of(stage: Stage, why: WaitReason) -> Cause:
    """The code and the sentence for an order that waits in this stage for this reason."""
    cause = CAUSES[why]
    asks = stage.asks or f"{stage.service} service"
    message = cause.message.format(stage=stage.name, service=stage.service, asks=asks)
    return Cause(code=cause.code, message=message)


def order_delayed(stage: Stage, order: Order, why: WaitReason, since: datetime) -> OrderDelayed:
    """The event that says in which stage the order waits, why, and since when."""
    delay = Delay(stage=stage.name, reason=cause_of(stage, why), since=since)
    return OrderDelayed.of(Delayed(order=order, delay=delay), stage.service)


def for_stage(stage: Stage, order_of: Callable[[R], Order]) -> DelayFactory[R]:
    """A factory for rows of work that belong to this stage."""

    def to_delay(row: R, why: WaitReason, since: datetime) -> OrderDelayed | None:
        return order_delayed(stage, order_of(row), why, since)

    return to_delay


class _Parked(msgspec.Struct):
    """The part of a parked event that is needed here. A newer version may have written the rest."""

    type: str
    data: AboutOrder


_parked: Final = msgspec.json.Decoder(_Parked)


def for_parked_event(body: bytes, service: str, why: WaitReason, since: datetime) -> OrderDelayed | None:
    """The event for one that the service has parked; None if that begins no stage, or names no order."""
    try:
        event = _parked.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    stage = stage_begun_by(event.type, service)
    return order_delayed(stage, event.data.order, why, since) if stage else None
