"""What a killed process left behind: a server that still runs, a pid file that no longer tells the truth.

Every program started on a folder inherits one locked file, so its lock is held exactly as long as one of them
lives. Unlike a pid, which is given out again after a restart, it cannot be mistaken for somebody else's.
"""

import asyncio
import fcntl
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from ops.postgres.errors import ServerNotStopped

# Fast, then immediate, then what cannot be refused, each with its patience in seconds:
# https://www.postgresql.org/docs/current/server-shutdown.html
_SIGNALS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))

# Seconds for an initdb to finish, or a server to write its pid, after the process that began it was killed.
_UNNAMED = 30.0

_POLL = 0.05  # seconds between two looks at a process that is not our child


class Claim:
    """The right to start programs on a folder; they keep it for as long as one of them lives."""

    def __init__(self, lock: IO[str], data: Path) -> None:
        self._lock, self._data = lock, data

    @property
    def inherited(self) -> int:
        """The descriptor that every program started on the folder inherits."""
        return self._lock.fileno()

    def new_socket_folder(self) -> Path:
        """Makes a private folder, noted first, so that it is removed even if we are killed right after.

        Its path is short: a socket's may have about 100 bytes, of which TMPDIR alone can take half (macOS).
        """
        sockets = Path("/tmp") / f"orderflow-{secrets.token_hex(4)}"  # noqa: S108  made by us or not at all
        self._lock.truncate(0)
        self._lock.write(f"{self._data}\n{sockets}\n")
        self._lock.flush()
        sockets.mkdir(mode=0o700)
        return sockets


@asynccontextmanager
async def claimed(folder: Path, data: Path) -> AsyncIterator[Claim]:
    """Stops what a killed process left running on `folder`, and removes its traces.

    Raises:
        ServerNotStopped: it outlived every signal.
    """
    with (folder / "server.lock").open("a+") as lock:
        await _stop_survivor(lock, folder, data)
        lock.seek(0)
        _remove_traces(lock.read().splitlines(), data)
        yield Claim(lock, data)


def sockets_of(folder: Path) -> Path | None:
    """Where the server on `folder` listens, as it was noted; None when no server was begun there."""
    try:
        noted = (folder / "server.lock").read_text().splitlines()
    except FileNotFoundError:
        return None
    return Path(noted[1]) if len(noted) == 2 else None


async def stop_survivor(folder: Path) -> None:
    """Stops what a killed process left running on `folder`, if anything. Nobody else uses it meanwhile.

    Raises:
        ServerNotStopped: it outlived every signal.
    """
    folder = await asyncio.to_thread(folder.resolve)
    async with claimed(folder, folder / "data"):
        return


async def stop(send: Callable[[int], None], ended: Callable[[], Awaitable[object]], folder: Path) -> None:
    """Sends one signal after another, each with its patience, until `ended` returns.

    Raises:
        ServerNotStopped: it outlived every signal.
    """
    for number, patience in _SIGNALS:
        with suppress(ProcessLookupError):
            send(number)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await ended()
            return
    raise ServerNotStopped(folder)


async def _stop_survivor(lock: IO[str], folder: Path, data: Path) -> None:
    async def released() -> None:
        while not _taken(lock):  # noqa: ASYNC110  another process holds it: there is no event to wait for
            await asyncio.sleep(_POLL)

    async def named_or_released() -> "_Postmaster | None":
        while not _taken(lock):
            if postmaster := _Postmaster.read(data):
                return postmaster
            await asyncio.sleep(_POLL)
        return None

    try:
        async with asyncio.timeout(_UNNAMED):
            postmaster = await named_or_released()
    except TimeoutError as late:
        raise ServerNotStopped(folder) from late
    if postmaster is not None:
        await stop(partial(os.kill, postmaster.pid), released, folder)


def _taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_traces(noted: Sequence[str], data: Path) -> None:
    """Removes what our last server left: PostgreSQL would believe its pid file if the pid is in use again.

    The pid file of a server that somebody started by hand is left for PostgreSQL to judge. A note that came
    with a copy of the folder is about the original, and one cut short by a power cut is about nothing.
    """
    if len(noted) != 2 or Path(noted[0]) != data:
        return
    sockets = Path(noted[1])
    shutil.rmtree(sockets, ignore_errors=True)  # mostly gone: it was stopped, or a restart has emptied /tmp
    postmaster = _Postmaster.read(data)
    if postmaster is not None and postmaster.sockets == sockets:
        (data / "postmaster.pid").unlink()


@dataclass(frozen=True)
class _Postmaster:
    """What `postmaster.pid` tells in its first and its fifth line (src/include/utils/pidfile.h)."""

    pid: int
    sockets: Path

    @classmethod
    def read(cls, data: Path) -> "_Postmaster | None":
        try:
            lines = (data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        if len(lines) < 5:  # it is being written
            return None
        return cls(pid=int(lines[0]), sockets=Path(lines[4]))
