"""The target of a command: the system that it reads or acts on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from chassis.settings import BrokerSettings, read
from ops.errors import CommandFailed
from ops.migrate import owner_url
from ops.postgres import embedded_postgres, running_postgres
from ops.state import StateFolder, StateFolderInUse, lock_state_folder


class NoSystem(CommandFailed):
    """The state folder has no system."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"There is no system in {folder}: name its folder with STATE, or its database with DATABASE_URL."
        )


class SystemStarting(CommandFailed):
    """The system in the folder is starting or stopping, so its database does not answer."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"The system in {folder} is starting or stopping: try again in a moment.")


@dataclass(frozen=True)
class Target:
    """The database and the broker of a system."""

    database_url: str
    """As a role that may read every schema, or as the owner; for SQLAlchemy, with the driver."""
    broker_url: str | None
    """None for a system in one process: it has no broker, and unhandled events are in its outboxes."""


@asynccontextmanager
async def open_target(database_url: str, broker_url: str, state: Path) -> AsyncIterator[Target]:
    """Opens the system at these URLs or, without a database URL, the one in the state folder.

    If no process runs the system in the folder, this locks the folder and runs its database while the context
    is open.

    Raises:
        CommandFailed: there is no such system.
        UnusableSettings: a URL can't be used.
    """
    if database_url:
        broker = read(BrokerSettings, broker_url=broker_url) if broker_url else None
        yield Target(owner_url(database_url), broker.broker_url if broker else None)
        return
    folder = StateFolder(state)
    if not (folder.postgres / "data").exists():
        raise NoSystem(state)
    try:
        with lock_state_folder(state):
            async with embedded_postgres(folder.postgres) as url:
                yield Target(url, None)
    except StateFolderInUse:
        running = running_postgres(folder.postgres)
        if running is None:
            raise SystemStarting(state) from None
        yield Target(running, None)
