"""Faults of processes: killed anywhere, killed at a named point, asked to end, paused."""

import asyncio
import signal
from dataclasses import dataclass
from typing import Final

from events.killpoints import KillPoint
from tests.faults.armed import LAST_WORDS
from tests.faults.cluster import Cluster
from tests.faults.fault import NoEffect
from tests.faults.replica import Ended, NotServing, Replica

PATIENCE: Final = 30.0
"""Seconds within which a process must have died as it was told, under load."""


async def _running(cluster: Cluster, name: str) -> tuple[Replica, int]:
    """The replica once its process serves, and the process's id."""
    replica = cluster.replicas[name]
    try:
        return replica, await replica.answering(PATIENCE)
    except NotServing as error:
        raise NoEffect(str(error)) from error


async def _ended(replica: Replica, pid: int) -> Ended:
    try:
        async with asyncio.timeout(PATIENCE):
            return await replica.ended(pid)
    except TimeoutError:
        raise NoEffect(f"{replica.name} ({pid}) still runs.") from None


@dataclass(frozen=True)
class Killed:
    """SIGKILL, wherever the process happens to be."""

    replica: str

    @property
    def name(self) -> str:
        return f"{self.replica} killed"

    async def strike(self, cluster: Cluster) -> str:
        replica, pid = await _running(cluster, self.replica)
        replica.signal(signal.SIGKILL)
        end = await _ended(replica, pid)
        if end.status != -signal.SIGKILL:
            raise NoEffect(f"{self.replica} ended with {end.status}.")
        return f"process {pid} ended by SIGKILL"

    async def heal(self, cluster: Cluster) -> None:
        await cluster.replicas[self.replica].answering()


@dataclass(frozen=True)
class KilledAt:
    """SIGKILL at a kill point, in the task of that name."""

    replica: str
    task: str
    point: KillPoint

    @property
    def name(self) -> str:
        return f"{self.replica} killed: {self.task}, {self.point}"

    async def strike(self, cluster: Cluster) -> str:
        replica, pid = await _running(cluster, self.replica)
        said = replica.log.stat().st_size
        replica.arm_file.write_text(f"{self.point} {self.task}\n", encoding="utf-8")
        replica.signal(signal.SIGUSR1)
        end = await _ended(replica, pid)
        with replica.log.open("rb") as log:
            log.seek(said)
            words = [line for line in log.read().decode(errors="replace").splitlines() if LAST_WORDS in line]
        if end.status != -signal.SIGKILL or not words:
            raise NoEffect(f"{self.replica} ended with {end.status}, and not where it should.")
        return f"process {pid} {words[-1]}"

    async def heal(self, cluster: Cluster) -> None:
        replica = cluster.replicas[self.replica]
        if replica.arm_file.exists():
            replica.arm_file.unlink()
            await replica.answering()


@dataclass(frozen=True)
class AskedToEnd:
    """SIGTERM: it finishes or gives back what is in flight, and exits with 0."""

    replica: str

    @property
    def name(self) -> str:
        return f"{self.replica} asked to end"

    async def strike(self, cluster: Cluster) -> str:
        replica, pid = await _running(cluster, self.replica)
        replica.signal(signal.SIGTERM)
        end = await _ended(replica, pid)
        if end.status == -signal.SIGKILL:
            raise NoEffect(f"{self.replica} was killed while it ended.")
        assert end.status == 0, f"{self.replica} ended with {end.status} after SIGTERM"
        return f"process {pid} ended with 0 after SIGTERM"

    async def heal(self, cluster: Cluster) -> None:
        await cluster.replicas[self.replica].answering()


@dataclass(frozen=True)
class Paused:
    """SIGSTOP for a while: its claims run out and others take over, then it goes on as if nothing was."""

    replica: str
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.replica} paused for {self.seconds:.0f} s"

    async def strike(self, cluster: Cluster) -> str:
        replica, pid = await _running(cluster, self.replica)
        replica.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(self.seconds)
            state = replica.state_of_process()
        finally:
            if replica.pid == pid:
                replica.signal(signal.SIGCONT)
        if state != "T":
            raise NoEffect(f"{self.replica} ({pid}) was not stopped: {state}.")
        return f"process {pid} stood still for {self.seconds:.0f} s"

    async def heal(self, cluster: Cluster) -> None:
        """It goes on since the end of `strike`."""
