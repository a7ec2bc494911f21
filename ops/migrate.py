"""Migration: roles, schemas and tables of every service, and the broker's topology.

Safe to repeat, and to run beside a live system.
"""

import asyncio
import logging
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

import asyncpg
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from chassis import database, migrations, revisions
from chassis.settings import BrokerSettings, DatabaseSettings, LogSettings, TextLogSettings, read
from chassis.telemetry import configure_logging
from events import partitions
from events.connection import DRIVER_ERRORS
from events.contracts import type_of
from events.errors import Unavailable
from events.rabbitmq import TopologyConflict, declare
from events.transactions import Transactions
from ops.errors import CommandFailed
from ops.services import SERVICES, load

PROVIDER: Final = "provider"
CARRIER: Final = "carrier"
"""The simulated provider and carrier. Each has a schema and a role of its own, as a third party has."""
HISTORIES: Final = {
    **{service: revisions.history_of(service) for service in SERVICES},
    PROVIDER: "services.billing:provider_migrations",
    CARRIER: "services.shipment:carrier_migrations",
}
"""The migrations of every schema, in their order: the carrier's first takes over a table of shipment's."""
AUDITOR: Final = "auditor"
"""The role of `audit`, `stuck` and `reconcile`: it reads every schema and writes none."""
ROLES: Final = (*HISTORIES, AUDITOR)
"""Every role: one for each schema, named like it, and the auditor."""
LOCK: Final = 0x6F7264657266  # "orderf": one migration at a time
WAIT_SECONDS: Final = 120.0
"""How long database and broker may take to answer."""

Passwords: TypeAlias = Mapping[str, str]
"""The password of each of ROLES."""

logger = logging.getLogger(__name__)


class UnusablePassword(CommandFailed):
    """The password of a database role is empty or has characters outside of printable ASCII."""


class MigrationRefused(CommandFailed):
    """The database or the broker refuses a step of the migration."""


class NotReached(CommandFailed):
    """The database or the broker did not answer in time."""


async def command(database_url: str, broker_url: str | None) -> int:
    """`orderflow migrate`: migrates the database, and the broker if it has a URL; returns the exit status."""
    configure_logging("migrate", read(TextLogSettings if sys.stderr.isatty() else LogSettings))
    owner = owner_url(database_url)
    broker = read(BrokerSettings, broker_url=broker_url) if broker_url else None
    await migrate(owner, passwords_from_environment())
    if broker:
        await declare_topology(broker.broker_url)
    return 0


def passwords_from_environment() -> Passwords:
    """`<NAME>_DB_PASSWORD` of every role; by default, a role's password is its name."""
    return {name: os.environ.get(f"{name.upper()}_DB_PASSWORD", name) for name in ROLES}


def owner_url(text: str) -> str:
    """Reads DATABASE_URL, from the command line or the environment, and puts DATABASE_PASSWORD in it.

    Raises UnusableSettings.
    """
    return read(DatabaseSettings, database_url=text).database_url


def url_for(owner_url: str, service: str, password: str) -> str:
    """The URL for a service's role, which reaches its own schema and nothing else."""
    url = make_url(owner_url)
    role = database.role_of(str(url.database), service)
    return url.set(username=role, password=password).render_as_string(hide_password=False)


async def migrate(url: str, passwords: Passwords, *, wait: float = WAIT_SECONDS) -> None:
    """Migrates the database to this version: every service's role, schema and tables.

    The role of `url` must be able to create roles. Waits at most `wait` seconds for the database to answer.

    Raises:
        CommandFailed: the database does not answer, or refuses a step.
    """
    await _wait_for("The database at DATABASE_URL", lambda: _connect_once(url), wait)
    try:
        for service in HISTORIES:
            await migrate_service(url, service, passwords[service])
        await _migrate_auditor(url, passwords[AUDITOR])
    except DBAPIError as refusal:
        raise MigrationRefused(f"The database refuses a step of the migration: {refusal.orig}") from refusal


async def declare_topology(broker_url: str, *, wait: float = WAIT_SECONDS) -> None:
    """Declares every service's queues and bindings, which must exist before anything is published.

    Waits at most `wait` seconds for the broker to answer.

    Raises:
        CommandFailed: the broker does not answer, or one of the names is in use for something else.
    """
    services = [load(name) for name in SERVICES]
    bindings = {service.name: [type_of(event) for event in service.handlers] for service in services}
    try:
        await _wait_for("The broker at BROKER_URL", lambda: declare(broker_url, bindings), wait)
    except TopologyConflict as conflict:
        raise MigrationRefused(str(conflict)) from conflict
    logger.info("the broker's topology is declared: %s", ", ".join(bindings))


async def _wait_for(what: str, reach: Callable[[], Awaitable[None]], seconds: float) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    reported = ""
    while True:
        try:
            return await reach()
        except Unavailable as error:
            if asyncio.get_running_loop().time() > deadline:
                raise NotReached(f"{what} did not answer within {seconds:.0f} s: {error}") from error
            if str(error) != reported:
                reported = str(error)
                logger.info("waiting: %s does not answer yet: %s", what, reported)
        await asyncio.sleep(0.5)


async def _connect_once(url: str) -> None:
    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        connection = await asyncpg.connect(dsn, timeout=5)
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as refusal:
        raise MigrationRefused(
            f"The database at DATABASE_URL refuses the connection: {refusal}."
        ) from refusal
    except asyncpg.ClientConfigurationError as error:
        raise MigrationRefused(f"DATABASE_URL can't be used: {error}.") from error
    except DRIVER_ERRORS as error:
        raise Unavailable(str(error) or "no answer") from error
    await connection.close()


async def migrate_service(owner_url: str, service: str, password: str) -> None:
    """Migrates one service's role, schema and tables to this version."""
    url = make_url(owner_url)
    role = database.role_of(str(url.database), service)
    engine = create_async_engine(url)
    try:
        async with engine.connect() as lock:
            await lock.execution_options(isolation_level="AUTOCOMMIT")
            await lock.execute(text(f"SELECT pg_advisory_lock({LOCK})"))
            async with engine.begin() as connection:
                await _create_role_and_schema(connection, url, service, role, password)
            await migrations.upgrade(engine, HISTORIES[service], schema=service, role=role)
            logger.info("%s is at revision %s or newer", service, revisions.head(HISTORIES[service]))
    finally:
        await engine.dispose()
    if service in SERVICES:
        await _renew_partitions(url_for(owner_url, service, password), service)


async def _create_role_and_schema(
    connection: AsyncConnection, url: URL, service: str, role: str, password: str
) -> None:
    """Runs in the caller's transaction, so that a role can't log in before it has its settings."""
    await _create_role(connection, service, role, password)
    statements = [
        f'GRANT "{role}" TO CURRENT_USER',
        f'ALTER ROLE "{role}" SET search_path TO "{service}"',
        f"ALTER ROLE \"{role}\" SET lock_timeout TO '5s'",
        f"ALTER ROLE \"{role}\" SET idle_in_transaction_session_timeout TO '60s'",
        f'REVOKE ALL ON DATABASE "{url.database}" FROM PUBLIC',
        f'GRANT CONNECT ON DATABASE "{url.database}" TO "{role}"',
        f'CREATE SCHEMA IF NOT EXISTS "{service}" AUTHORIZATION "{role}"',
    ]
    for statement in statements:
        await connection.exec_driver_sql(statement)


async def _migrate_auditor(owner_url: str, password: str) -> None:
    """Creates the auditor's role. It may read every table, also those that services create later."""
    url = make_url(owner_url)
    role = database.role_of(str(url.database), AUDITOR)
    statements = [
        f'ALTER ROLE "{role}" SET default_transaction_read_only TO on',
        f"ALTER ROLE \"{role}\" SET lock_timeout TO '5s'",
        f"ALTER ROLE \"{role}\" SET idle_in_transaction_session_timeout TO '60s'",
        f'GRANT CONNECT, TEMPORARY ON DATABASE "{url.database}" TO "{role}"',
    ]
    for schema in HISTORIES:
        maker = database.role_of(str(url.database), schema)
        statements += [
            f'GRANT USAGE ON SCHEMA "{schema}" TO "{role}"',
            f'GRANT SELECT ON ALL TABLES IN SCHEMA "{schema}" TO "{role}"',
            f'ALTER DEFAULT PRIVILEGES FOR ROLE "{maker}" IN SCHEMA "{schema}" '
            f'GRANT SELECT ON TABLES TO "{role}"',
        ]
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            await _create_role(connection, AUDITOR, role, password)
            for statement in statements:
                await connection.exec_driver_sql(statement)
    finally:
        await engine.dispose()


async def _create_role(connection: AsyncConnection, name: str, role: str, password: str) -> None:
    """Creates the role, or sets its password. Raises UnusablePassword."""
    if not re.fullmatch(r"[\x20-\x7e]+", password):
        raise UnusablePassword(
            f"{name.upper()}_DB_PASSWORD is empty or has characters outside of printable ASCII."
        )
    secret = password.replace("'", "''")
    exists = await connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role})
    await connection.exec_driver_sql(
        f"{'ALTER' if exists else 'CREATE'} ROLE \"{role}\" LOGIN PASSWORD '{secret}'"
    )


async def _renew_partitions(url: str, service: str) -> None:
    """Creates the partitions of the coming weeks, or leaves that to the service if a lock is in the way."""
    async with database.connect(url, pool=1, application=f"migrate {service}") as pool:
        try:
            await partitions.renew(Transactions(pool))
        except Unavailable as error:
            logger.warning("the service %s has to create its partitions itself: %s", service, error)
