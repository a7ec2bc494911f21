"""Replicas: supervised processes of the system, restarted whenever they end."""

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

from tests.faults.armed import CODE_LOG
from tests.faults.client import Client, NoAnswer

ROOT: Final = Path(__file__).resolve().parents[2]
"""This checkout's folder."""
ARMED: Final = Path(__file__).with_name("armed.py")


class NotServing(Exception):
    """A process did not begin to serve in time."""


@dataclass(frozen=True)
class Ended:
    """The end of one of a replica's processes."""

    pid: int
    status: int
    """The exit status; a signal's is its negative number."""
    at: float


@dataclass
class Replica:
    """A supervised process of a service: it is restarted whenever it ends, as compose does.

    All its processes append to one log file.
    """

    name: str
    """The service's name and a number, as in `billing-1`."""
    arguments: tuple[str, ...]
    """The module that `armed` runs, and its arguments."""
    environment: Mapping[str, str]
    port: int | None
    """Its local HTTP port, the same for all its processes; None if it has none."""
    log: Path
    code: Path = ROOT
    """The folder of the code that its next process runs."""
    ends: list[Ended] = field(default_factory=list)
    starts: int = 0
    """The number of starts."""
    started_at: float = 0.0
    _log_offset: int = 0
    """Where the current process's log begins in the file."""
    _process: asyncio.subprocess.Process | None = None
    _supervisor: asyncio.Task[None] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def service(self) -> str:
        """The name of its service."""
        return self.name.rsplit("-", 1)[0]

    @property
    def pid(self) -> int | None:
        """The id of the current process; None if none is running."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def arm_file(self) -> Path:
        """The file from which `armed` reads its kill point."""
        return self.log.with_suffix(".arm")

    def code_folders(self) -> str:
        """The folders of its code that the current process has logged; empty before that."""
        prefix = f"process {self.pid} {CODE_LOG} "
        with self.log.open("rb") as log:
            log.seek(self._log_offset)
            lines = log.read().decode(errors="replace").splitlines()
        return next((line.removeprefix(prefix) for line in lines if line.startswith(prefix)), "")

    def process_state(self) -> str:
        """The process's state as the kernel's letter: R, S, T (stopped), Z …; empty if none is running."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return ""
        return stat.rpartition(")")[2].split()[0]

    async def wait_until_serving(self, patience: float = 60.0) -> int:
        """Returns the process id once it serves; it handles all signals then. Raises NotServing."""
        try:
            async with asyncio.timeout(patience):
                while True:
                    pid = self.pid
                    if pid is not None and await self._serves() and pid == self.pid:
                        return pid
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise NotServing(f"{self.name} did not serve within {patience:.0f} s.") from None

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
        """Whether the process has a handler for this signal, by the kernel's record (proc_pid_status(5))."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            return False
        caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught, 16) >> (number - 1) & 1)

    def supervise(self) -> None:
        """Starts the process, and restarts it whenever it ends."""
        self._supervisor = asyncio.create_task(self._supervise(), name=f"supervise {self.name}")

    def signal(self, number: signal.Signals) -> int:
        """Sends a signal to the current process and returns its id. Raises ProcessLookupError."""
        pid = self.pid
        if pid is None:
            raise ProcessLookupError(f"{self.name} is not running.")
        os.kill(pid, number)
        return pid

    async def wait_for_end(self, pid: int) -> Ended:
        """Waits until this process has ended. An earlier process may have had the same id."""
        while True:
            ended = [end for end in self.ends if end.pid == pid]
            if ended and self.pid != pid:
                return ended[-1]
            changed = self._changed
            await changed.wait()

    async def stop(self) -> int | None:
        """Ends it with SIGTERM for good; returns its exit status, None if it was not running."""
        if self._supervisor:
            self._supervisor.cancel()
            with suppress(asyncio.CancelledError):
                await self._supervisor
        if self.pid is None or self._process is None:
            return None
        self._process.terminate()
        try:
            async with asyncio.timeout(40):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()

    async def _supervise(self) -> None:
        while True:
            path = f"{self.code}{os.pathsep}{self.code / 'libs'}"
            with self.log.open("ab") as log:
                self._log_offset = log.tell()
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
            if time.monotonic() - self.started_at < 1:  # it can't start: avoid a busy loop
                await asyncio.sleep(0.5)
