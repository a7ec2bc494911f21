"""The whole system in one process: every service on one memory bus, by default with its own PostgreSQL."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
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
from ops.state import StateFolder

_TABLES_WITH_CLAIMS: Final = """
    SELECT c.oid::regclass::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE a.attname = 'claimed_until' AND c.relkind IN ('r', 'p') AND NOT c.relispartition"""


class _MailSettings(Settings):
    """The environment's settings for mails."""

    smtp_url: str | None = None
    mail_folder: Path | None = None
    mail_record_only: bool = False


@dataclass(frozen=True)
class ExternalServices:
    """The payment provider and the mail server of a system in one process."""

    overrides: Mapping[str, dict[str, Any]]
    """By service, the settings that replace the environment's."""
    mail_location: str
    """Where a person finds the mails."""

    @classmethod
    def from_environment(cls, state: StateFolder) -> "ExternalServices":
        """As the environment says; without SMTP_URL and MAIL_FOLDER, mails are files in the state folder.

        Raises UnusableSettings.
        """
        settings = read(_MailSettings)
        into_state = {} if settings.smtp_url or settings.mail_folder else {"mail_folder": state.mails}
        if settings.mail_record_only:
            location = "recorded, and sent to nobody (MAIL_RECORD_ONLY)"
        elif settings.smtp_url:
            location = "at the mail server of SMTP_URL"
        else:
            location = f"{settings.mail_folder or state.mails}/"
        return cls({"email": into_state}, location)

    @classmethod
    def simulated(cls, state: StateFolder) -> "ExternalServices":
        """Simulated payments, and mails as files in the state folder, whatever the environment says."""
        email = {"smtp_url": None, "mail_folder": state.mails, "mail_record_only": False}
        return cls({"billing": {"payment_provider": "simulated"}, "email": email}, f"{state.mails}/")


@dataclass(frozen=True)
class EmbeddedSystem:
    """Every service of the system, ready to run."""

    running: Sequence[OpenService]
    bus: MemoryBus
    reconciler: Reconciler

    async def serve(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Serves and works until `stop`, then finishes what it has begun. The outboxes keep the rest."""
        async with asyncio.TaskGroup() as parts:
            reconciling = parts.create_task(self.reconciler.run(), name="reconcile")

            def on_requests_answered() -> None:
                reconciling.cancel()
                self.bus.close()

            await process.run(self.running, listener, stop, answered=on_requests_answered)


@asynccontextmanager
async def embedded_system(
    state: StateFolder, database_url: str | None, external: ExternalServices
) -> AsyncIterator[EmbeddedSystem]:
    """Assembles the system on a state folder, and migrates its database to this version.

    The database is an embedded PostgreSQL in that folder, or the one at `database_url`, as an owner that may
    create roles. Settings come from the environment, except for those that `external` overrides.

    Raises:
        UnusableSettings: the environment's settings can't be used.
        CommandFailed: the database can't be started, reached or migrated. Also if the embedded PostgreSQL
            ends on its own: the body of the context is then cancelled.
    """
    async with AsyncExitStack() as stack:
        has_own_database = database_url is None
        if database_url is None:
            database_url = await stack.enter_async_context(embedded_postgres(state.postgres))
        passwords = migrate.passwords_from_environment()
        await migrate.migrate(database_url, passwords)
        if has_own_database:
            await _release_claims(database_url)
        services = [load(name) for name in SERVICES]
        bus = MemoryBus(
            {service.name: [type_of(event) for event in service.handlers] for service in services}
        )
        running: list[OpenService] = []
        for service in services:
            urls = _database_urls(service, database_url, passwords)
            settings = read(service.settings, **urls, **external.overrides.get(service.name, {}))
            running.append(await stack.enter_async_context(open_service(service, settings, bus)))
        auditor = migrate.url_for(database_url, migrate.AUDITOR, passwords[migrate.AUDITOR])
        connection = database.connect(auditor, pool=2, application="reconcile")
        reconciler = Reconciler(Transactions(await stack.enter_async_context(connection)), bus)
        yield EmbeddedSystem(running, bus, reconciler)


async def _release_claims(url: str) -> None:
    """Releases the claims of a killed process. No other process works on this database."""
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            for table in await connection.scalars(text(_TABLES_WITH_CLAIMS)):
                await connection.execute(
                    text(f"UPDATE {table} SET claimed_until = now() WHERE claimed_until > now()")  # noqa: S608
                )
    finally:
        await engine.dispose()


def _database_urls(service: Service, url: str, passwords: migrate.Passwords) -> dict[str, Any]:
    """The URLs of the service's schema, and of the simulated provider's or carrier's where it asks one."""
    urls = {"database_url": migrate.url_for(url, service.name, passwords[service.name])}
    for name, schema in (("billing", migrate.PROVIDER), ("shipment", migrate.CARRIER)):
        if service.name == name:
            urls[f"{schema}_database_url"] = migrate.url_for(url, schema, passwords[schema])
    return urls
