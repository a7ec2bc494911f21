"""The whole system in one process: every service on one memory bus, with a PostgreSQL of its own."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from chassis import database, process
from chassis.service import OpenService, Service, open_service
from chassis.settings import Settings, read
from events.contracts import type_of
from events.memory import MemoryBus
from events.transactions import Transactions
from ops import migrate
from ops.postgres import embedded_postgres
from ops.reconcile.reconciler import Reconciler
from ops.services import SERVICES, load
from ops.state import State

_TABLES_WITH_CLAIMS: Final = """
    SELECT c.oid::regclass::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE a.attname = 'claimed_until' AND c.relkind IN ('r', 'p') AND NOT c.relispartition"""


class _MailSettings(Settings):
    """Where the environment sends mails."""

    smtp_url: str | None = None
    mail_folder: Path | None = None
    mail_record_only: bool = False


@dataclass(frozen=True)
class Outside:
    """What payments and mails meet outside of the process, and where mails are to be looked for."""

    billing: dict[str, Any]
    email: dict[str, Any]
    """Settings that the services are given in place of the environment's."""
    mails: str

    @classmethod
    def as_told(cls, state: State) -> "Outside":
        """As the environment says; where it says nothing of mails they are files in the state folder.

        Raises UnusableSettings.
        """
        told = read(_MailSettings)
        into_folder = {} if told.smtp_url or told.mail_folder else {"mail_folder": state.mails}
        if told.mail_record_only:
            place = "recorded, and sent to nobody (MAIL_RECORD_ONLY)"
        else:
            place = (
                "at the mail server of SMTP_URL" if told.smtp_url else f"{told.mail_folder or state.mails}/"
            )
        return cls({}, into_folder, place)

    @classmethod
    def nothing(cls, state: State) -> "Outside":
        """Payments are simulated and mails are files in the state folder, whatever the environment says."""
        email = {"smtp_url": None, "mail_folder": state.mails, "mail_record_only": False}
        return cls({"payment_provider": "simulated"}, email, f"{state.mails}/")

    def given(self, service: str) -> dict[str, Any]:
        """What this service is given."""
        return {"billing": self.billing, "email": self.email}.get(service, {})


@dataclass(frozen=True)
class Embedded:
    """Every service, put together and ready to run."""

    running: Sequence[OpenService]
    bus: MemoryBus
    reconciler: Reconciler

    async def serve(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Serves and works until `stop`; then what was begun is finished, the rest is in the outbox."""
        async with asyncio.TaskGroup() as parts:
            reconciling = parts.create_task(self.reconciler.run(), name="reconcile")

            def answered() -> None:
                reconciling.cancel()
                self.bus.close()

            await process.run(self.running, listener, stop, answered=answered)


@asynccontextmanager
async def embedded(state: State, database_url: str | None, outside: Outside) -> AsyncIterator[Embedded]:
    """The system on a state folder, migrated to what this version needs.

    Its database is an embedded PostgreSQL in that folder, or the one at `database_url`, as an owner that may
    create roles. All other settings are the environment's, but for those that `outside` gives.

    Raises:
        UnusableSettings: the environment's settings can't be used.
        CommandFailed: the database can't be had or migrated. Also when the embedded PostgreSQL ends on its
            own: then what is awaited inside is cancelled.
    """
    async with AsyncExitStack() as stack:
        alone = database_url is None
        if database_url is None:
            database_url = await stack.enter_async_context(embedded_postgres(state.postgres))
        passwords = migrate.passwords_from_environment()
        await migrate.migrate(database_url, passwords)
        if alone:
            await _void_claims(database_url)
        services = [load(name) for name in SERVICES]
        bus = MemoryBus(
            {service.name: [type_of(event) for event in service.handlers] for service in services}
        )
        running: list[OpenService] = []
        for service in services:
            given = _addresses(service, database_url, passwords) | outside.given(service.name)
            settings = read(service.settings, **given)
            running.append(await stack.enter_async_context(open_service(service, settings, bus)))
        auditor = migrate.url_for(database_url, migrate.AUDITOR, passwords[migrate.AUDITOR])
        reading = database.connect(auditor, pool=2, application="reconcile")
        reconciler = Reconciler(Transactions(await stack.enter_async_context(reading)), bus)
        yield Embedded(running, bus, reconciler)


async def _void_claims(url: str) -> None:
    """Frees what a killed process had claimed: on this database there is nobody else who could work."""
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            for table in await connection.scalars(text(_TABLES_WITH_CLAIMS)):
                await connection.execute(
                    text(f"UPDATE {table} SET claimed_until = now() WHERE claimed_until > now()")  # noqa: S608
                )
    finally:
        await engine.dispose()


def _addresses(service: Service, url: str, passwords: migrate.Passwords) -> dict[str, Any]:
    """The URLs of the service's database, and of the simulated provider's or carrier's where it asks one."""
    given = {"database_url": migrate.url_for(url, service.name, passwords[service.name])}
    for name, schema in (("billing", migrate.PROVIDER), ("shipment", migrate.CARRIER)):
        if service.name == name:
            given[f"{schema}_database_url"] = migrate.url_for(url, schema, passwords[schema])
    return given
