"""The embedded PostgreSQL keeps its promises on real folders and when its owner is killed."""

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from ops.postgres import embedded_postgres, stop_orphan
from ops.postgres.errors import (
    BinariesMissing,
    DataUnusable,
    ProgramsDoNotStart,
    ServerDied,
    ServerFailed,
)
from ops.postgres.privileges import Launcher, launchers
from ops.postgres.programs import find_programs

DEADLINE = 30.0

OPEN_AND_WAIT_TO_BE_KILLED = """
import asyncio, sys
from pathlib import Path
from ops.postgres import embedded_postgres

async def main():
    async with embedded_postgres(Path(sys.argv[1])) as url:
        print(url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


async def write(url: str, note: str) -> None:
    async with connected(url) as connection:
        await connection.execute(text("CREATE TABLE IF NOT EXISTS note (words text)"))
        await connection.execute(text("INSERT INTO note VALUES (:words)"), {"words": note})


async def notes(url: str) -> Sequence[str]:
    async with connected(url) as connection:
        return (await connection.execute(text("SELECT words FROM note ORDER BY words"))).scalars().all()


def is_running(folder: Path) -> bool:
    """Whether a server runs there: the lock is its own until the last of its processes has ended."""
    with (folder / "server.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def pid_of_server(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])


def socket_folder(url: str) -> Path:
    return Path(url.partition("host=")[2].partition("&")[0])


async def until_there(folder: Path, pattern: str) -> None:
    """Waits for a file: a process that is about to be killed can't report how far it is."""
    async with asyncio.timeout(DEADLINE):
        while not any(folder.glob(pattern)):
            await asyncio.sleep(0.001)


@asynccontextmanager
async def owner_to_be_killed(folder: Path) -> AsyncIterator[asyncio.StreamReader]:
    """A process that opens the database, killed on leaving; gives what it prints."""
    owner = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        OPEN_AND_WAIT_TO_BE_KILLED,
        str(folder),
        stdout=asyncio.subprocess.PIPE,
    )
    assert owner.stdout is not None
    try:
        yield owner.stdout
    finally:
        owner.send_signal(signal.SIGKILL)
        assert await owner.wait() == -signal.SIGKILL


async def test_it_answers_in_utf8_and_syncs_what_it_commits(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path / "state") as url, connected(url) as connection:
        settings = "current_database(), current_setting('server_encoding'), current_setting('fsync')"
        assert (await connection.execute(text(f"SELECT {settings}"))).one() == ("orderflow", "UTF8", "on")


async def test_it_listens_on_no_port_and_accepts_only_this_account(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path) as url:
        async with connected(url) as connection:
            assert (await connection.execute(text("SHOW listen_addresses"))).scalar() == ""
        assert socket_folder(url).stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "postgres.log").stat().st_mode & 0o777 == 0o600


async def test_its_session_is_its_own_so_that_ctrl_c_does_not_reach_it(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path):
        assert os.getsid(pid_of_server(tmp_path)) != os.getsid(0)


async def test_settings_for_another_postgres_in_the_environment_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "6543")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGHOST", "nowhere.invalid")
    async with embedded_postgres(tmp_path) as url:
        await write(url, "here")


async def test_data_outlives_the_server_and_nothing_else_does(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path) as first:
        await write(first, "kept")
    assert not socket_folder(first).exists()
    assert not (tmp_path / "data" / "postmaster.pid").exists()
    async with embedded_postgres(tmp_path) as second:
        assert await notes(second) == ["kept"]


async def test_an_orphaned_server_is_stopped_by_the_next_owner(tmp_path: Path) -> None:
    async with owner_to_be_killed(tmp_path) as output:
        orphaned = (await output.readline()).decode().strip()
    orphan = pid_of_server(tmp_path)
    await write(orphaned, "written after the kill")  # the server goes on

    async with embedded_postgres(tmp_path) as url:
        assert await notes(url) == ["written after the kill"]
        assert pid_of_server(tmp_path) != orphan
        assert not socket_folder(orphaned).exists()


async def test_an_orphaned_server_can_be_stopped_without_starting_another(tmp_path: Path) -> None:
    async with owner_to_be_killed(tmp_path) as output:
        orphaned = (await output.readline()).decode().strip()
    await stop_orphan(tmp_path)
    assert not (tmp_path / "data" / "postmaster.pid").exists()
    assert not socket_folder(orphaned).exists()


@pytest.mark.parametrize("sign", ["server.lock", "data.new-*/PG_VERSION", "data", "postgres.log"])
async def test_an_owner_killed_while_it_starts_leaves_nothing_in_the_way(tmp_path: Path, sign: str) -> None:
    async with owner_to_be_killed(tmp_path):
        await until_there(tmp_path, sign)
    async with embedded_postgres(tmp_path) as url:
        await write(url, "here")
    assert list(tmp_path.glob("data.new-*")) == []


async def test_a_server_that_was_killed_with_its_owner_recovers_what_it_committed(tmp_path: Path) -> None:
    async with owner_to_be_killed(tmp_path) as output:
        url = (await output.readline()).decode().strip()
        await write(url, "committed")
        os.kill(pid_of_server(tmp_path), signal.SIGKILL)
    async with embedded_postgres(tmp_path) as url:
        assert await notes(url) == ["committed"]


async def test_a_stale_pid_file_that_names_another_living_process_is_not_believed(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path) as url:
        pid_file = (tmp_path / "data" / "postmaster.pid").read_text().splitlines()
    bystander = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        (tmp_path / "data" / "postmaster.pid").write_text(
            "\n".join([str(bystander.pid), *pid_file[1:]]) + "\n"
        )
        async with embedded_postgres(tmp_path) as url:
            await write(url, "here")
        assert bystander.returncode is None
    finally:
        bystander.kill()
        await bystander.wait()


async def test_data_of_another_major_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path):
        version = (tmp_path / "data" / "PG_VERSION").read_text().strip()
    (tmp_path / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(DataUnusable, match=rf"holds data of PostgreSQL 12, and this is PostgreSQL {version}"):
        async with embedded_postgres(tmp_path):
            pass
    assert (tmp_path / "data" / "PG_VERSION").read_text() == "12\n"


async def test_a_folder_with_other_things_in_it_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "letter.txt").write_text("dear")
    with pytest.raises(DataUnusable, match="files that are not PostgreSQL's"):
        async with embedded_postgres(tmp_path):
            pass
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["letter.txt"]


async def test_the_remains_of_an_interrupted_initdb_are_removed(tmp_path: Path) -> None:
    leftover = tmp_path / "data.new-abcd"
    leftover.mkdir()
    (leftover / "PG_VERSION").write_text("18\n")
    async with embedded_postgres(tmp_path) as url:
        await write(url, "here")
    assert not leftover.exists()


async def test_the_error_of_a_server_that_does_not_start_quotes_its_log(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path):
        pass
    with (tmp_path / "data" / "postgresql.conf").open("a") as configuration:
        configuration.write("no_such_setting = 1\n")
    with pytest.raises(ServerFailed, match=r"did not start(?s:.*)no_such_setting"):
        async with embedded_postgres(tmp_path):
            pass


async def test_the_context_is_cancelled_when_the_server_ends_on_its_own(tmp_path: Path) -> None:
    with pytest.raises(ServerDied, match="has ended on its own"):
        async with embedded_postgres(tmp_path):
            os.kill(pid_of_server(tmp_path), signal.SIGQUIT)
            async with asyncio.timeout(DEADLINE):
                await asyncio.Event().wait()
    async with embedded_postgres(tmp_path) as url:
        await write(url, "here")


async def test_a_start_that_is_cancelled_leaves_nothing_running(tmp_path: Path) -> None:
    async def opened() -> None:
        async with embedded_postgres(tmp_path):
            pytest.fail("it was to be cancelled before it is ready")

    opening = asyncio.create_task(opened())
    await until_there(tmp_path, "postgres.log")
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with asyncio.timeout(DEADLINE):  # one that was only just begun is killed, and leaves its pid file
        while is_running(tmp_path):
            await asyncio.sleep(0.01)


async def test_if_no_launcher_works_the_error_names_each(tmp_path: Path) -> None:
    ways = [
        Launcher(
            "through a closed door", os.geteuid(), os.getegid(), ("sh", "-c", "echo it is closed; exit 1")
        ),
        Launcher("through no door", os.geteuid(), os.getegid(), ("no-such-program",)),
    ]
    named = "through a closed door: it is closed; through no door: no-such-program: "
    with pytest.raises(ProgramsDoNotStart, match=named):
        async with embedded_postgres(tmp_path, ways):
            pass


async def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(BinariesMissing, match="`embedded` extra"):
        async with embedded_postgres(tmp_path):
            pass


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every account can enter; pytest's own are closed to all but the one that runs it."""
    with TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_only_root_needs_another_launcher() -> None:
    assert len(launchers()) == (3 if os.geteuid() == 0 else 1)


async def test_every_launcher_that_works_here_can_use_the_data_of_the_others(
    reachable: Path,
) -> None:
    served: list[str] = []
    for way in [*launchers(), *reversed(launchers())]:
        try:
            await find_programs(reachable, [way])
        except ProgramsDoNotStart:  # no user namespaces in this container, or the programs are below /root
            continue
        async with embedded_postgres(reachable, [way]) as url:
            served.append(f"{len(served)} {way.name}")
            await write(url, served[-1])
            assert await notes(url) == served
    assert served


async def test_the_last_launcher_works_on_a_folder_that_is_closed_to_other_accounts(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    async with embedded_postgres(closed / "state", launchers()[-1:]) as url:
        await write(url, "here")
