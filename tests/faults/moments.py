"""Moments: points in a protocol at which a proxy can cut a connection."""

from dataclasses import dataclass
from typing import Final

from tests.faults.protocols import Step


@dataclass(frozen=True)
class Moment:
    """A point between a client's request and its server's answer."""

    name: str
    step: Step
    """The step that has reached the proxy and is not forwarded yet."""
    after: Step | None = None
    """The request that `step` answers; it must have been forwarded since the watch began."""
    halfway: bool = False
    """Whether `step` itself is still forwarded; everything after it is not."""


COMMIT_UNSENT: Final = Moment("a COMMIT that does not arrive", Step.COMMIT)
COMMIT_UNANSWERED: Final = Moment("a COMMIT whose answer is lost", Step.COMMITTED, Step.COMMIT)
PUBLISH_UNSENT: Final = Moment("a publish that does not arrive", Step.PUBLISH)
PUBLISH_UNCONFIRMED: Final = Moment("a publish whose confirm is lost", Step.CONFIRM, Step.PUBLISH)
DELIVERY_UNRECEIVED: Final = Moment("a delivery that does not arrive", Step.DELIVERY)
DELIVERY_UNACKNOWLEDGED: Final = Moment("a delivery whose acknowledgement is lost", Step.ACKNOWLEDGEMENT)
MAIL_UNFINISHED: Final = Moment("a mail whose final dot does not arrive", Step.FINAL_DOT)
MAIL_UNANSWERED: Final = Moment("a mail whose 250 is lost", Step.MAIL_TAKEN, Step.FINAL_DOT)
CHANGE_UNSENT: Final = Moment("a request that does not arrive whole", Step.CHANGE)
CHANGE_UNANSWERED: Final = Moment("a request whose answer is lost", Step.ANSWER, Step.CHANGE)
CHANGE_HALF_ANSWERED: Final = Moment(
    "a request whose answer ends after its head", Step.ANSWER, Step.CHANGE, halfway=True
)
