"""Migration: roles, schemas and tables of every service. Safe to repeat, and to run beside a live system."""

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from chassis import database, migrations
from events import partitions
from events.commit import Transactions

PROVIDER: Final = "provider"
"""The simulated payment provider's own ledger: a third party's database, as it were."""
SERVICES: Final = ("order", "invoice", "billing", "shipment", "email")
HISTORIES: Final = {
    **{service: migrations.history_of(service) for service in SERVICES},
    PROVIDER: "services.billing:ledger",
}
"""The migrations of every schema."""
LOCK: Final = 0x6F7264657266  # "orderf": one migration at a time

logger = logging.getLogger(__name__)


class UnusablePassword(ValueError):
    """A password of a database role is empty or has characters outside of printable ASCII."""


def url_for(owner_url: str, service: str, password: str) -> str:
    """The URL with which a service reaches its own schema, and nothing else."""
    url = make_url(owner_url)
    role = database.role_of(str(url.database), service)
    return url.set(username=role, password=password).render_as_string(hide_password=False)


async def migrate(owner_url: str, passwords: Mapping[str, str]) -> None:
    """Brings the database to what this version needs: every service's role, schema and tables.

    `owner_url` may create roles; `passwords` has one for each service and for the provider.
    """
    for service in HISTORIES:
        await migrate_service(owner_url, service, passwords[service])


async def migrate_service(owner_url: str, service: str, password: str) -> None:
    """Brings one service's role, schema and tables to what this version needs."""
    url = make_url(owner_url)
    role = database.role_of(str(url.database), service)
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as lock:
            await lock.execute(text(f"SELECT pg_advisory_lock({LOCK})"))
            async with engine.connect() as connection:
                await _create_role_and_schema(connection, url, service, role, password)
            await migrations.upgrade(engine, HISTORIES[service], schema=service, role=role)
            logger.info("%s is at revision %s", service, migrations.head(HISTORIES[service]))
    finally:
        await engine.dispose()
    if service != PROVIDER:
        await _renew_partitions(url_for(owner_url, service, password), service)


async def _create_role_and_schema(
    connection: AsyncConnection, url: URL, service: str, role: str, password: str
) -> None:
    if not re.fullmatch(r"[\x21-\x7e]+", password):
        raise UnusablePassword(UnusablePassword.__doc__)
    secret = password.replace("'", "''")
    exists = await connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role})
    statements = [
        f"{'ALTER' if exists else 'CREATE'} ROLE \"{role}\" LOGIN PASSWORD '{secret}'",
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


async def _renew_partitions(url: str, service: str) -> None:
    connection = database.connect(url, pool=1, application=f"migrate {service}")
    async with connection as engine, Transactions(engine)() as tx:
        await partitions.renew(tx, datetime.now(UTC))
