"""The email service as a process: `python -m services.email.main`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from chassis.service import Assembly, Service
from chassis.settings import Days, ServiceSettings
from events.transactions import Transactions
from services.email import mime, smtp
from services.email.delivery import MAIL, delivery
from services.email.domain import Mail
from services.email.emptying import MailEmptier
from services.email.folder import FolderMailer
from services.email.handlers import HANDLERS
from services.email.letters import Letters
from services.email.mailer import Mailer


def _a_mailbox(text: str) -> str:
    mime.mailbox(text)
    return text


def _a_server(url: str) -> str:
    smtp.Server.parse(url)
    return url


class EmailSettings(ServiceSettings):
    """What the email service needs to know: who writes, and where the mails go."""

    mail_from: Annotated[str, AfterValidator(_a_mailbox)] = "Orderflow <orders@orderflow.example>"
    """`Name <address>`. The name is that of the shop; the domain makes the Message-IDs."""
    smtp_url: Annotated[Annotated[str, AfterValidator(_a_server)] | None, Field(repr=False)] = None
    """`smtp[s]://[user:password@]host[:port]`; `?starttls` insists on STARTTLS."""
    smtp_password: SecretStr | None = None
    mail_folder: Path | None = None
    """A folder for `.eml` files, in place of a mail server."""
    mail_record_only: bool = False
    """Mails are recorded as sent and go nowhere, whatever else is set: for rehearsals and load tests."""
    mail_concurrency: Annotated[int, Field(ge=1, le=200)] = 16
    """Most mails that are being sent at a time, each over a connection of its own.

    One that takes longer than a second no longer counts, up to four times as many: slow recipients hold up
    nobody else's mails.
    """
    mail_retry_seconds: Annotated[float, Field(ge=1, le=MAIL.longest, allow_inf_nan=False)] = MAIL.first
    """The first pause before a mail that the server did not take is offered again. It doubles, up to 2 h."""
    mail_event_days: Days = 30
    """How long a mail that has ended keeps the event that it tells of."""

    @model_validator(mode="after")
    def _one_way_out(self) -> Self:
        ways = [way for way in (self.smtp_url, self.mail_folder) if way is not None]
        if len(ways) > 1 or not (ways or self.mail_record_only):
            raise ValueError(
                "Set one of SMTP_URL (a mail server) and MAIL_FOLDER (.eml files), or MAIL_RECORD_ONLY=true."
            )
        return self


@asynccontextmanager
async def _mailer(settings: EmailSettings, domain: str) -> AsyncIterator[Mailer | None]:
    if settings.mail_record_only:
        yield None
    elif settings.mail_folder is not None:
        yield FolderMailer(settings.mail_folder)
    else:
        assert settings.smtp_url is not None
        async with smtp.connect(smtp.Server.parse(settings.smtp_url), domain) as mailer:
            yield mailer


@asynccontextmanager
async def assemble(settings: EmailSettings, transactions: Transactions) -> AsyncIterator[Assembly]:
    """The runner that delivers the mails which the handlers leave behind."""
    letters = Letters(settings.mail_from)
    async with _mailer(settings, letters.domain) as mailer:
        runner = delivery(
            transactions,
            letters,
            mailer,
            concurrency=settings.mail_concurrency,
            policy=replace(MAIL, first=settings.mail_retry_seconds),
        )
        chores = [MailEmptier(timedelta(days=settings.mail_event_days))]
        yield Assembly(runners={Mail: runner}, chores=chores)


SERVICE = Service("email", HANDLERS, EmailSettings, assemble)

if __name__ == "__main__":
    from chassis.process import serve  # only a process of its own needs a broker's client and a web server

    serve(SERVICE)
