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
"""The tables of `events`: named one by one, because a table is known only once its module is imported."""


def _config(history: str) -> Config:
    config = Config()
    config.set_main_option("script_location", history)
    return config


async def upgrade(engine: AsyncEngine, history: str, *, schema: str, role: str) -> None:
    """Brings a schema to its history's head, as its role, in one transaction.

    One that a newer version has brought further stays as it is.
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
    """What every history's `env.py` does: run the migrations on the connection that was handed in.

    `metadata` are the tables that the code expects, beside those of `events` for whoever takes part in them.
    """
    expected = [metadata, *_EVENTS] if with_events else [metadata]
    context.configure(connection=context.config.attributes["connection"], target_metadata=expected)
    context.run_migrations()
