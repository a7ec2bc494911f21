"""The target of a command: the system that it looks at, or acts on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from chassis.settings import BrokerSettings, read
from ops.errors import CommandFailed
from ops.migrate import owner_url
from ops.postgres import embedded_postgres, running_postgres
from ops.state import State, StateHeld, held


class NoSystem(CommandFailed):
    """There is no system to look at."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"There is no system in {folder}: name its folder with STATE, or its database with DATABASE_URL."
        )


class SystemStarting(CommandFailed):
    """The system in the folder has no database yet, or none any more."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"The system in {folder} is starting or stopping: try again in a moment.")


@dataclass(frozen=True)
class Target:
    """Where a system's records are."""

    database_url: str
    """Of a role that may read every schema, or of the owner; in full, for SQLAlchemy."""
    broker_url: str | None
    """None for a system in one process: what it has not handled is in its outboxes."""


@asynccontextmanager
async def target(database_url: str, broker_url: str, state: Path) -> AsyncIterator[Target]:
    """The system at these URLs; without a database's, the one in the state folder, running or not.

    Where none runs its database is started for as long as the context is open, and the folder is held.

    Raises:
        CommandFailed: there is no such system.
        UnusableSettings: a URL can't be used.
    """
    if database_url:
        broker = read(BrokerSettings, broker_url=broker_url) if broker_url else None
        yield Target(owner_url(database_url), broker.broker_url if broker else None)
        return
    folder = State(state)
    if not (folder.postgres / "data").exists():
        raise NoSystem(state)
    try:
        with held(state):
            async with embedded_postgres(folder.postgres) as url:
                yield Target(url, None)
    except StateHeld:
        running = running_postgres(folder.postgres)
        if running is None:
            raise SystemStarting(state) from None
        yield Target(running, None)
