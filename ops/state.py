"""The state folder: all that the system in one process keeps, and the lock that one process holds on it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.errors import CommandFailed


class StateHeld(CommandFailed):
    """Another process works on the state folder."""

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(
            f"{folder} is in use by another orderflow, process {holder}: stop that one, "
            "or choose another folder, such as STATE=var/second."
        )


class StateUnwritable(CommandFailed):
    """The state folder can't be made, or not written to."""

    def __init__(self, folder: Path, refusal: OSError) -> None:
        super().__init__(
            f"{folder} can't be written ({refusal.strerror}): "
            "choose another folder, such as STATE=/tmp/orderflow."
        )


@dataclass(frozen=True)
class State:
    """A state folder that this process holds."""

    folder: Path

    @property
    def postgres(self) -> Path:
        """Where the embedded PostgreSQL keeps its data."""
        return self.folder / "postgres"

    @property
    def mails(self) -> Path:
        """Where mails go, one `.eml` file each."""
        return self.folder / "mails"

    @property
    def log(self) -> Path:
        """What the services log."""
        return self.folder / "orderflow.log"


@contextmanager
def held(folder: Path) -> Iterator[State]:
    """Makes the folder if need be, and holds it: one process at a time.

    The lock is gone when the process is, however it ends; the pid in the file is for people.

    Raises:
        StateHeld: another process holds it.
        StateUnwritable: it can't be made, or belongs to another account.
    """
    state = State(folder)
    try:
        state.mails.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
    except OSError as refusal:
        raise StateUnwritable(folder, refusal) from refusal
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StateHeld(folder, lock.read().strip() or "unknown") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield state
