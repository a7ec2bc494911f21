"""Email as a process: `python -m services.email.main`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from chassis.service import Assembly, Service
from events.transactions import Transactions
from services.email import work
from services.email.cleaner import OldMailCleaner
from services.email.domain import Mail
from services.email.folder import FolderMailer
from services.email.handlers import HANDLERS
from services.email.mailer import Mailer
from services.email.rendering import MailRenderer
from services.email.settings import EmailSettings
from services.email.smtp.mailer import connect
from services.email.smtp.server import Server


@asynccontextmanager
async def _mailer(settings: EmailSettings, domain: str) -> AsyncIterator[Mailer | None]:
    if settings.mail_record_only:
        yield None
    elif settings.mail_folder is not None:
        yield FolderMailer(settings.mail_folder)
    else:
        assert settings.smtp_url is not None
        async with connect(Server.parse(settings.smtp_url), domain) as mailer:
            yield mailer


@asynccontextmanager
async def assemble(settings: EmailSettings, transactions: Transactions) -> AsyncIterator[Assembly]:
    """The mailer, the runner that delivers mails with it, and the cleaner of old mails."""
    renderer = MailRenderer(settings.mail_from)
    async with _mailer(settings, renderer.domain) as mailer:
        runner = work.runner_of_mails(
            renderer,
            mailer,
            transactions,
            concurrency=settings.mail_concurrency,
            policy=replace(work.MAIL_RETRIES, first=settings.mail_retry_seconds),
        )
        chores = [OldMailCleaner(timedelta(days=settings.mail_event_days))]
        yield Assembly(runners={Mail: runner}, chores=chores)


SERVICE = Service("email", HANDLERS, EmailSettings, assemble)

if __name__ == "__main__":
    from chassis.process import serve  # only a process of its own needs a broker's client and a web server

    serve(SERVICE)
