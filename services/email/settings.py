"""The settings of email: those of every service, and how mails are sent."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from chassis.settings import Days, ServiceSettings
from services.email import mime
from services.email.smtp.server import Server
from services.email.work import MAIL_RETRIES


def _mailbox(text: str) -> str:
    mime.parse_mailbox(text)
    return text


def _server(url: str) -> str:
    Server.parse(url)
    return url


class EmailSettings(ServiceSettings):
    """Read from the environment."""

    mail_from: Annotated[str, AfterValidator(_mailbox)] = "Orderflow <orders@orderflow.example>"
    """`Name <address>`: the shop's name; the domain also ends the Message-IDs."""
    smtp_url: Annotated[Annotated[str, AfterValidator(_server)] | None, Field(repr=False)] = None
    """`smtp[s]://[user:password@]host[:port]`; `?starttls` insists on STARTTLS."""
    smtp_password: SecretStr | None = None
    mail_folder: Path | None = None
    """A folder for `.eml` files, in place of a mail server."""
    mail_record_only: bool = False
    """Mails are recorded as sent and not sent, whatever else is set: for rehearsals and load tests."""
    mail_concurrency: Annotated[int, Field(ge=1, le=200)] = 16
    """Most mails that are being sent at a time, each over a connection of its own.

    A mail that takes longer than a second no longer counts, up to four times as many, so slow recipients do
    not hold up the other mails.
    """
    mail_retry_seconds: Annotated[float, Field(ge=1, le=MAIL_RETRIES.longest, allow_inf_nan=False)] = (
        MAIL_RETRIES.first
    )
    """The first pause before a mail that the server did not take is offered again. It doubles, up to 2 h."""
    mail_event_days: Days = 30
    """How long the record of a sent or refused mail keeps its event."""

    @model_validator(mode="after")
    def _name_one_way_to_send(self) -> Self:
        ways = [way for way in (self.smtp_url, self.mail_folder) if way is not None]
        if len(ways) > 1 or not (ways or self.mail_record_only):
            raise ValueError(
                "Set one of SMTP_URL (a mail server) and MAIL_FOLDER (.eml files), or MAIL_RECORD_ONLY=true."
            )
        return self
