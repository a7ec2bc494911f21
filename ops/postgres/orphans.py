"""Finds and stops the server that a killed process left running, and removes its files.

Every program started on a folder inherits one locked file, so the lock is held exactly as long as one of them
runs. A pid would not do: after a restart it may belong to another program.
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

# Fast shutdown, immediate shutdown, kill, each with the seconds to wait for its effect:
# https://www.postgresql.org/docs/current/server-shutdown.html
_SIGNALS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))

# Seconds for an orphaned initdb to finish, or an orphaned server to write its pid.
_PID_WITHIN = 30.0

_POLL = 0.05  # seconds between two checks of a process that is not our child


class FolderLock:
    """The right to start programs on a folder. They inherit it: it lasts while one of them runs."""

    def __init__(self, lock: IO[str], data: Path) -> None:
        self._lock, self._data = lock, data

    @property
    def descriptor(self) -> int:
        """The descriptor of the lock, which every program started on the folder must inherit."""
        return self._lock.fileno()

    def new_socket_folder(self) -> Path:
        """Creates a private folder. Its path is noted first, so that it is removed even if we are killed.

        The path is short: a socket's path may have about 100 bytes, and TMPDIR alone can take half (macOS).
        """
        sockets = Path("/tmp") / f"orderflow-{secrets.token_hex(4)}"  # noqa: S108  mkdir fails if it exists
        self._lock.truncate(0)
        self._lock.write(f"{self._data}\n{sockets}\n")
        self._lock.flush()
        sockets.mkdir(mode=0o700)
        return sockets


@asynccontextmanager
async def lock_folder(folder: Path, data: Path) -> AsyncIterator[FolderLock]:
    """Locks `folder`. Stops the server that a killed process left running there, and removes its files.

    Raises:
        ServerNotStopped: the server still runs after every signal.
    """
    with (folder / "server.lock").open("a+") as lock:
        await _stop_orphan(lock, folder, data)
        lock.seek(0)
        _remove_files(lock.read().splitlines(), data)
        yield FolderLock(lock, data)


def noted_socket_folder(folder: Path) -> Path | None:
    """The noted socket folder of the server on `folder`; None if no server was started there."""
    try:
        noted = (folder / "server.lock").read_text().splitlines()
    except FileNotFoundError:
        return None
    return Path(noted[1]) if len(noted) == 2 else None


async def stop_orphan(folder: Path) -> None:
    """Stops the server that a killed process left running on `folder`, if any.

    The caller must ensure that no other process uses the folder meanwhile.

    Raises:
        ServerNotStopped: the server still runs after every signal.
    """
    folder = await asyncio.to_thread(folder.resolve)
    async with lock_folder(folder, folder / "data"):
        return


async def stop(send: Callable[[int], None], ended: Callable[[], Awaitable[object]], folder: Path) -> None:
    """Sends one signal after another until `ended` returns.

    Raises:
        ServerNotStopped: the server still runs after every signal.
    """
    for number, seconds in _SIGNALS:
        with suppress(ProcessLookupError):
            send(number)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await ended()
            return
    raise ServerNotStopped(folder)


async def _stop_orphan(lock: IO[str], folder: Path, data: Path) -> None:
    async def released() -> None:
        while not _try_lock(lock):  # noqa: ASYNC110  another process holds it: there is no event to wait for
            await asyncio.sleep(_POLL)

    async def postmaster_or_released() -> "_Postmaster | None":
        while not _try_lock(lock):
            if postmaster := _Postmaster.read(data):
                return postmaster
            await asyncio.sleep(_POLL)
        return None

    try:
        async with asyncio.timeout(_PID_WITHIN):
            postmaster = await postmaster_or_released()
    except TimeoutError as late:
        raise ServerNotStopped(folder) from late
    if postmaster is not None:
        await stop(partial(os.kill, postmaster.pid), released, folder)


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_files(noted: Sequence[str], data: Path) -> None:
    """Removes the pid file and the socket folder of our last server.

    PostgreSQL would trust the pid file if another program has the pid now. The pid file of a server that was
    started by hand stays, for PostgreSQL to judge. The note is ignored if it is incomplete (a power cut), or
    if it names another folder (this one is a copy).
    """
    if len(noted) != 2 or Path(noted[0]) != data:
        return
    sockets = Path(noted[1])
    shutil.rmtree(sockets, ignore_errors=True)  # usually gone: the server or a restart removed it
    postmaster = _Postmaster.read(data)
    if postmaster is not None and postmaster.sockets == sockets:
        (data / "postmaster.pid").unlink()


@dataclass(frozen=True)
class _Postmaster:
    """The first and the fifth line of `postmaster.pid` (src/include/utils/pidfile.h)."""

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
