"""The state folder: the data of the system in one process, and the lock that keeps it to one process."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.errors import CommandFailed


class StateFolderInUse(CommandFailed):
    """Another process has locked the state folder."""

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(
            f"{folder} is in use by another orderflow, process {holder}: stop that one, "
            "or choose another folder, such as STATE=var/second."
        )


class StateFolderUnwritable(CommandFailed):
    """The state folder can't be created or written."""

    def __init__(self, folder: Path, refusal: OSError) -> None:
        super().__init__(
            f"{folder} can't be written ({refusal.strerror}): "
            "choose another folder, such as STATE=/tmp/orderflow."
        )


@dataclass(frozen=True)
class StateFolder:
    """The paths in a state folder."""

    folder: Path

    @property
    def postgres(self) -> Path:
        """The folder of the embedded PostgreSQL."""
        return self.folder / "postgres"

    @property
    def mails(self) -> Path:
        """The folder of mails, one `.eml` file each."""
        return self.folder / "mails"

    @property
    def log(self) -> Path:
        """The log of all services."""
        return self.folder / "orderflow.log"


@contextmanager
def lock_state_folder(folder: Path) -> Iterator[StateFolder]:
    """Creates the folder if it does not exist, and locks it for this process.

    The operating system releases the lock when the process ends, in whatever way. The pid in the lock file is
    only for people.

    Raises:
        StateFolderInUse: another process has locked it.
        StateFolderUnwritable: it can't be created, or belongs to another account.
    """
    state = StateFolder(folder)
    try:
        state.mails.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
    except OSError as refusal:
        raise StateFolderUnwritable(folder, refusal) from refusal
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StateFolderInUse(folder, lock.read().strip() or "unknown") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield state
