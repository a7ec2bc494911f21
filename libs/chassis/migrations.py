"""Alembic, one history per service, in the service's own schema and owned by its own role."""

from typing import Final

from alembic import command, context
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis import revisions
from events import inbox, interventions, outbox, parked

_EVENTS: Final = {
    table.metadata
    for table in (
        outbox.OUTBOX,
        inbox.INBOX,
        inbox.ATTEMPTS,
        parked.PARKED,
        interventions.INTERVENTIONS,
    )
}
"""The tables of `events`. Each module is named, because importing it registers its table."""


def _config(history: str) -> Config:
    config = Config()
    config.set_main_option("script_location", history)
    return config


async def upgrade(engine: AsyncEngine, history: str, *, schema: str, role: str) -> None:
    """Upgrades a schema to its history's head, as its role, in one transaction.

    Does nothing to a schema of a newer version.
    """

    def run(connection: Connection) -> None:
        connection.execute(text(f'SET LOCAL ROLE "{role}"'))
        connection.execute(text(f'SET LOCAL search_path TO "{schema}"'))
        present = MigrationContext.configure(connection).get_current_revision()
        if present is not None and present > revisions.head(history):
            return
        config = _config(history)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="READ COMMITTED")
        async with connection.begin():
            await connection.run_sync(run)


def run_env(metadata: MetaData, *, with_events: bool = True) -> None:
    """Runs the migrations on the connection that `upgrade` passed. Called by every history's `env.py`.

    `metadata` has the tables that the code expects. `with_events` adds those of `events`.
    """
    expected = [metadata, *_EVENTS] if with_events else [metadata]
    context.configure(connection=context.config.attributes["connection"], target_metadata=expected)
    context.run_migrations()
