"""Replicas: processes of the system, each started again at once whenever it ends."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.faults.armed import FIRST_WORDS
from tests.faults.client import Client, NoAnswer

ROOT: Final = Path(__file__).resolve().parents[2]
"""This checkout."""
ARMED: Final = Path(__file__).with_name("armed.py")


class NotServing(Exception):
    """A process does not serve."""


@dataclass(frozen=True)
class Ended:
    """An end of a replica's process."""

    pid: int
    status: int
    """Exit status; a signal is its negative number."""
    at: float


@dataclass
class Replica:
    """One place for a process of a service: whatever ends there is started again, as compose does it.

    Its log goes on in one file through all of its lives.
    """

    name: str
    """The service's name and a number: `billing-1`."""
    arguments: tuple[str, ...]
    """A module that is run by `armed`, and its arguments."""
    environment: Mapping[str, str]
    port: int | None
    """Where it answers HTTP on this machine, in every life; None if it does not."""
    log: Path
    code: Path = ROOT
    """The folder whose code its next process runs."""
    ends: list[Ended] = field(default_factory=list)
    starts: int = 0
    """How often it was started."""
    started_at: float = 0.0
    _born_at: int = 0
    """Where the log of the process that runs now begins in the file."""
    _process: asyncio.subprocess.Process | None = None
    _keeper: asyncio.Task[None] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def service(self) -> str:
        """Of which service."""
        return self.name.rsplit("-", 1)[0]

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def arm_file(self) -> Path:
        """Where it reads at which kill point it is to die."""
        return self.log.with_suffix(".arm")

    def folders_said(self) -> str:
        """Where the process that runs now says that its code is; empty while it has not said so."""
        wanted = f"process {self.pid} {FIRST_WORDS} "
        with self.log.open("rb") as log:
            log.seek(self._born_at)
            lines = log.read().decode(errors="replace").splitlines()
        return next((line.removeprefix(wanted) for line in lines if line.startswith(wanted)), "")

    def state_of_process(self) -> str:
        """The kernel's letter for it: R, S, T (stopped), Z …; empty when it does not run."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return ""
        return stat.rpartition(")")[2].split()[0]

    async def answering(self, patience: float = 60.0) -> int:
        """The pid, once the process serves; it knows every signal by then. Raises NotServing."""
        try:
            async with asyncio.timeout(patience):
                while True:
                    pid = self.pid
                    if pid is not None and await self._serves() and pid == self.pid:
                        return pid
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise NotServing(f"{self.name} has not begun to serve within {patience:.0f} s.") from None

    async def _serves(self) -> bool:
        if self.port is None:
            return self._catches(signal.SIGTERM)
        client = Client(self.port)
        try:
            status, _ = await client.get("/healthz")
        except NoAnswer:
            return False
        finally:
            client.close()
        return status == 200

    def _catches(self, number: signal.Signals) -> bool:
        """Whether the process has a handler for this signal, as the kernel has it (proc_pid_status(5))."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            return False
        caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught, 16) >> (number - 1) & 1)

    def keep(self) -> None:
        """Starts it, and from now on again whenever it ends."""
        self._keeper = asyncio.create_task(self._keep(), name=f"keeps {self.name}")

    def signal(self, number: signal.Signals) -> int:
        """Sends a signal to the process that runs now; returns its pid. Raises ProcessLookupError."""
        pid = self.pid
        if pid is None:
            raise ProcessLookupError(f"{self.name} does not run.")
        os.kill(pid, number)
        return pid

    async def ended(self, pid: int) -> Ended:
        """How that process ended, once it has. An id may have been that of an earlier process, too."""
        while True:
            ended = [end for end in self.ends if end.pid == pid]
            if ended and self.pid != pid:
                return ended[-1]
            changed = self._changed
            await changed.wait()

    async def close(self) -> int | None:
        """SIGTERM, and not started again; its exit status, None if it did not run."""
        if self._keeper:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        if self.pid is None or self._process is None:
            return None
        self._process.terminate()
        try:
            async with asyncio.timeout(40):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()

    async def _keep(self) -> None:
        while True:
            path = f"{self.code}{os.pathsep}{self.code / 'libs'}"
            with self.log.open("ab") as log:
                self._born_at = log.tell()
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", str(ARMED)),
                    *self.arguments,
                    env={**self.environment, "ARM": str(self.arm_file), "PYTHONPATH": path},
                    cwd=self.code,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            self.starts += 1
            self.started_at = time.monotonic()
            status = await self._process.wait()
            self.ends.append(Ended(self._process.pid, status, time.monotonic()))
            self._changed.set()
            self._changed = asyncio.Event()
            if time.monotonic() - self.started_at < 1:  # it can't even start: not a busy loop
                await asyncio.sleep(0.5)
