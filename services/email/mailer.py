"""The mailer: how a finished mail leaves the house. Two ways: SMTP (`smtp.py`), a folder (`folder.py`)."""

from dataclasses import dataclass, field
from typing import Protocol

from events.errors import Postponed, Unavailable, UnknownOutcome
from services.email.domain import Outcome


class MailServerUnavailable(Unavailable):
    """The mail server takes no mail at all now."""


class MailPostponed(Postponed):
    """The mail server does not take this mail now, and has not taken it; it will be asked again."""


class MailPerhapsSent(UnknownOutcome):
    """The mail was handed over, and the mail server did not say whether it has it; it will be sent again."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A finished mail: what is on the envelope and what is in it."""

    name: str
    """Names the mail among all others, fit for a file name. The same mail has the same name."""
    sender: str
    recipient: str
    """Addresses as they go on the envelope. Outside of ASCII only where RFC 6531 (SMTPUTF8) is needed."""
    content: bytes = field(repr=False)
    """The message (RFC 5322) with CRLF line ends."""


class Mailer(Protocol):
    """Sends finished mails."""

    async def send(self, letter: Letter) -> Outcome:
        """The definite outcome: the mail server has the mail for good, or will never take it.

        Raises MailServerUnavailable, MailPostponed or MailPerhapsSent; after the last one only can sending
        again make a second copy. Cancelling it is like MailPerhapsSent.
        """
        ...
