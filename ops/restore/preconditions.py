"""Preconditions of a restore: the database is migrated, and no service runs."""

from collections.abc import Collection
from typing import Final

from chassis.database import role_of
from events.rabbitmq import queues
from ops.errors import CommandFailed
from ops.owner_database import OwnerDatabase
from ops.services import SERVICES

_SESSIONS: Final = """
    SELECT DISTINCT usename FROM pg_stat_activity
    WHERE datname = current_database() AND usename = ANY($1::text[]) ORDER BY usename"""
_MIGRATED: Final = """
    SELECT to_regclass('billing.recovered_charges') IS NOT NULL
        AND to_regclass('invoice.lost_numbers') IS NOT NULL AS there"""


class ServicesRunning(CommandFailed):
    """Services are connected to the database or consume from the broker."""

    def __init__(self, services: Collection[str]) -> None:
        super().__init__(
            f"Stop these services first, and start them after the restore: {', '.join(services)}."
        )


class NotMigrated(CommandFailed):
    """The database is older than this version: run 'orderflow migrate' first, with the services stopped."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


async def check_migrated(owned: OwnerDatabase) -> None:
    """Raises NotMigrated."""
    async with owned.transactions() as tx:
        [record] = await tx.fetch(_MIGRATED)
    if not record["there"]:
        raise NotMigrated


async def check_services_stopped(owned: OwnerDatabase, broker_url: str | None) -> None:
    """Raises ServicesRunning, or BrokerUnavailable."""
    roles = {role_of(owned.database, service): service for service in SERVICES}
    async with owned.transactions() as tx:
        running = {roles[record["usename"]] for record in await tx.fetch(_SESSIONS, list(roles))}
    if broker_url:
        states = await queues(broker_url, SERVICES)
        running |= {service for service, state in states.items() if state and state.consumers}
    if running:
        raise ServicesRunning(sorted(running))
