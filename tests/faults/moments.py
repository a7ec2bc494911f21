"""Moments: when exactly something happens to a connection, in the words of its protocol."""

from dataclasses import dataclass
from typing import Final

from tests.faults.talks import What


@dataclass(frozen=True)
class Moment:
    """A moment between what a client asks and what its server answers."""

    name: str
    what: What
    """What is on its way: it has come to the proxy, and is not forwarded yet."""
    after: What | None = None
    """The request that it answers, which must have been forwarded since the moment was waited for."""
    halfway: bool = False
    """It is forwarded; what comes after it is not."""


COMMIT_UNSENT: Final = Moment("a COMMIT that does not arrive", What.COMMIT)
COMMIT_UNANSWERED: Final = Moment("a COMMIT whose answer is lost", What.COMMITTED, What.COMMIT)
PUBLISH_UNSENT: Final = Moment("a publish that does not arrive", What.PUBLISH)
PUBLISH_UNCONFIRMED: Final = Moment("a publish whose confirm is lost", What.CONFIRM, What.PUBLISH)
DELIVERY_UNRECEIVED: Final = Moment("a delivery that does not arrive", What.DELIVERY)
DELIVERY_UNACKNOWLEDGED: Final = Moment("a delivery whose acknowledgement is lost", What.ACKNOWLEDGEMENT)
MAIL_UNFINISHED: Final = Moment("a mail whose final dot does not arrive", What.FINAL_DOT)
MAIL_UNANSWERED: Final = Moment("a mail whose 250 is lost", What.MAIL_TAKEN, What.FINAL_DOT)
CHANGE_UNSENT: Final = Moment("a request that does not arrive whole", What.CHANGE)
CHANGE_UNANSWERED: Final = Moment("a request whose answer is lost", What.ANSWER, What.CHANGE)
CHANGE_HALF_ANSWERED: Final = Moment(
    "a request whose answer ends after its head", What.ANSWER, What.CHANGE, halfway=True
)
