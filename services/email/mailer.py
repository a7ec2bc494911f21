"""The mailer: sends rendered mails, by SMTP (`smtp.mailer`) or into a folder (`folder`)."""

from dataclasses import dataclass, field
from typing import Protocol

from events.errors import Postponed, Unavailable, UnknownOutcome
from services.email.domain import Outcome


class MailServerUnavailable(Unavailable):
    """The mail server takes no mail at all now."""


class MailPostponed(Postponed):
    """The mail server does not take this mail now, and has not taken it; it will be asked again."""


class MailPerhapsSent(UnknownOutcome):
    """The mail was handed over, but the mail server did not confirm it; it will be sent again."""


@dataclass(frozen=True, slots=True)
class RenderedMail:
    """A mail as it is sent: the addresses of its envelope, and the message."""

    name: str
    """Unique among all mails and fit for a file name. The same mail has the same name."""
    sender: str
    recipient: str
    """Outside of ASCII only where RFC 6531 (SMTPUTF8) is needed."""
    content: bytes = field(repr=False)
    """The message (RFC 5322) with CRLF line ends."""


class Mailer(Protocol):
    """Sends rendered mails."""

    async def send(self, mail: RenderedMail) -> Outcome:
        """The definite outcome: the mail server has the mail for good, or will never take it.

        Raises MailServerUnavailable, MailPostponed or MailPerhapsSent. Sending again can make a second copy
        only after MailPerhapsSent, or after a cancelled call.
        """
        ...
