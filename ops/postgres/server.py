"""The server's life: stop what was left running, start, wait until it answers, stop."""

import asyncio
import shutil
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from chassis.stopping import Stopped, cancel_when
from ops.postgres.data import prepare
from ops.postgres.errors import FolderNotOurs, ServerDied, ServerFailed
from ops.postgres.privileges import Launcher, launchers
from ops.postgres.programs import Programs, find_programs
from ops.postgres.survivors import Claim, claimed, sockets_of, stop

_DATABASE = "orderflow"
_OWNER = "postgres"
_PORT = 5432  # only the end of the socket's name; said to both sides, because PGPORT would change the default

_SETTINGS = (
    "--listen_addresses=",
    f"--port={_PORT}",
    "--unix_socket_permissions=0700",
    "--max_connections=200",
    "--shared_buffers=128MB",
    "--timezone=UTC",
    "--log_timezone=UTC",
)

_READY_WITHIN = 120.0  # seconds: after a power cut up to a gigabyte of log is replayed first
_POLL = 0.02  # seconds between two attempts to connect
_LAST_WORDS = 15  # lines


@asynccontextmanager
async def embedded_postgres(folder: Path, ways: Sequence[Launcher] | None = None) -> AsyncIterator[str]:
    """Runs a private PostgreSQL on `folder` while the context is open.

    Gives the SQLAlchemy URL of the role that owns everything (a superuser), in the database `orderflow`, made
    if need be. The server listens on a unix socket that only this account can reach, and has a session of its
    own, so that Ctrl-C does not end it under those who still use it.

    What was committed is kept, whatever ends: this process, the server, the machine. If this process is
    killed the server goes on; the next to open `folder` stops it and starts its own. If the server ends
    before the context does, what is awaited inside is cancelled, and ServerDied is raised. The caller sees
    to it that only one process at a time opens `folder`.

    `folder` holds `data/`, the log of this run (`postgres.log`) and of the one before (`postgres.log.1`).
    `ways` are how to start PostgreSQL, best first; by default, those that `launchers` knows.

    Raises:
        PostgresUnavailable: it cannot be had; the message is for the person who started the program.
    """
    try:
        server = await _start(folder, launchers() if ways is None else ways)
    except PermissionError as denied:
        raise FolderNotOurs(folder, denied) from denied
    try:
        await server.make_ready()
        async with cancel_when(server.process.wait):
            yield _url(server.sockets)
    except Stopped as ended:
        raise ServerDied(server.log) from ended
    finally:
        await stop(server.process.send_signal, server.process.wait, folder)
        await asyncio.to_thread(shutil.rmtree, server.sockets)


def running_postgres(folder: Path) -> str | None:
    """URL of the server that another process runs on `folder`, as `embedded_postgres` gave it there.

    None while there is none that answers: it is starting, or stopping.
    """
    sockets = sockets_of(folder)
    return _url(sockets) if sockets and (sockets / f".s.PGSQL.{_PORT}").exists() else None


def _url(sockets: Path) -> str:
    return f"postgresql+asyncpg://{_OWNER}@/{_DATABASE}?host={sockets}&port={_PORT}"


@dataclass(frozen=True)
class _Server:
    process: Process
    sockets: Path
    log: Path

    async def make_ready(self) -> None:
        try:
            async with asyncio.timeout(_READY_WITHIN):
                connection = await self._first_connection()
                try:
                    await _make_database(connection)
                finally:
                    await connection.close()
        except TimeoutError as late:
            raise self._failed(f"was not ready after {_READY_WITHIN:.0f} s") from late

    async def _first_connection(self) -> asyncpg.Connection:
        while self.process.returncode is None:
            try:
                return await asyncpg.connect(
                    host=str(self.sockets), port=_PORT, user=_OWNER, database="postgres"
                )
            except (FileNotFoundError, ConnectionError, asyncpg.CannotConnectNowError):
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL):
                        await self.process.wait()
        raise self._failed("did not start")

    def _failed(self, what: str) -> ServerFailed:
        lines = self.log.read_text(errors="replace").splitlines()
        return ServerFailed(f"PostgreSQL {what}", "\n".join(lines[-_LAST_WORDS:]))


async def _make_database(connection: asyncpg.Connection) -> None:
    if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", _DATABASE):
        await connection.execute(f"CREATE DATABASE {_DATABASE}")


async def _start(folder: Path, ways: Sequence[Launcher]) -> _Server:
    folder = await asyncio.to_thread(_made, folder)
    data = folder / "data"
    async with claimed(folder, data) as claim:
        programs = await find_programs(folder, ways)
        await prepare(data, programs, claim)
        sockets = claim.new_socket_folder()
        try:
            programs.launcher.give(sockets)
            return await _launch(programs, data, sockets, claim)
        except BaseException:
            shutil.rmtree(sockets)
            raise


async def _launch(programs: Programs, data: Path, sockets: Path, claim: Claim) -> _Server:
    log = _fresh_log(data.parent)
    place = ("-D", str(data), f"--unix_socket_directories={sockets}")
    with log.open("ab") as output:
        process = await programs.start(
            "postgres", *place, *_SETTINGS, output=output, inherited=claim.inherited
        )
    return _Server(process, sockets, log)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def _fresh_log(folder: Path) -> Path:
    log = folder / "postgres.log"
    with suppress(FileNotFoundError):
        log.replace(folder / "postgres.log.1")
    log.touch(mode=0o600)  # an error quotes the row that it is about
    return log
