"""Faults of processes: killed anywhere, killed at a named point, asked to end, paused."""

import asyncio
import signal
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from events.killpoints import KillPoint
from tests.faults.armed import LAST_WORDS
from tests.faults.cluster import REPLICAS, Cluster
from tests.faults.fault import Misbehaved, NoEffect
from tests.faults.moments import Moment
from tests.faults.proxy import Connection, Proxy
from tests.faults.replica import Ended, NotServing, Replica

PATIENCE: Final = 60.0
"""Seconds within which a process must have died as it was told, under load."""


async def _running(cluster: Cluster, name: str) -> tuple[Replica, int]:
    """The replica once its process serves, and the process's id."""
    replica = cluster.replicas[name]
    try:
        return replica, await replica.answering(PATIENCE)
    except NotServing as error:
        raise NoEffect(str(error)) from error


async def asked_to_end(cluster: Cluster, name: str) -> int:
    """Sends SIGTERM; the id of the process, which ended with 0. Raises NoEffect or Misbehaved."""
    replica, pid = await _running(cluster, name)
    replica.signal(signal.SIGTERM)
    end = await _ended(replica, pid)
    if end.status:
        raise Misbehaved(f"{name} ended with {end.status} after SIGTERM.")
    return pid


async def _ended(replica: Replica, pid: int) -> Ended:
    try:
        async with asyncio.timeout(PATIENCE):
            return await replica.ended(pid)
    except TimeoutError:
        raise NoEffect(f"{replica.name} ({pid}) still runs.") from None


def _tell(replicas: Collection[Replica], number: signal.Signals) -> None:
    """Sends a signal to those that run."""
    for replica in replicas:
        with suppress(ProcessLookupError):
            replica.signal(number)


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
    disturbs: Literal["database", "ledger", "broker", "mail", "provider"] | None = None
    """The proxy that is away for a moment, so that work is put off and claimed anew."""

    @property
    def name(self) -> str:
        return f"{self.replica} killed: {self.task}, {self.point}"

    async def strike(self, cluster: Cluster) -> str:
        replica, pid = await _running(cluster, self.replica)
        said = replica.log.stat().st_size
        replica.arm_file.write_text(f"{self.point} {self.task}\n", encoding="utf-8")
        replica.signal(signal.SIGUSR1)
        disturbing = asyncio.create_task(self._disturb(cluster))
        try:
            end = await _ended(replica, pid)
        finally:
            disturbing.cancel()
            await asyncio.gather(disturbing, return_exceptions=True)
        with replica.log.open("rb") as log:
            log.seek(said)
            lines = log.read().decode(errors="replace").splitlines()
        wanted = f'{LAST_WORDS} {self.point} in "'
        words = [line for line in lines if line.startswith(wanted) and self.task in line]
        if end.status != -signal.SIGKILL or not words:
            raise NoEffect(f"{self.replica} ended with {end.status}, and not where it should.")
        return f"process {pid} {words[-1]}"

    async def _disturb(self, cluster: Cluster) -> None:
        """Work is put off, again and again, while no other replica can claim it."""
        if self.disturbs is None:
            return
        proxy: Proxy = getattr(cluster, self.disturbs)
        others = [r for r in cluster.of(cluster.replicas[self.replica].service) if r.name != self.replica]
        try:
            _tell(others, signal.SIGSTOP)
            while True:
                await proxy.refuse()
                await asyncio.sleep(2.0)
                await proxy.accept()
                await asyncio.sleep(6.0)
        finally:
            await proxy.accept()
            _tell(others, signal.SIGCONT)

    async def heal(self, cluster: Cluster) -> None:
        replica = cluster.replicas[self.replica]
        if replica.arm_file.exists():
            replica.arm_file.unlink()
            await replica.answering()


@dataclass(frozen=True)
class KilledByMoment:
    """SIGKILL to the process that is the client where a moment of the protocol comes."""

    line: Literal["database", "ledger", "broker", "mail", "provider"]
    moment: Moment

    @property
    def name(self) -> str:
        return f"{self.line}: client killed at {self.moment.name}"

    async def strike(self, cluster: Cluster) -> str:
        killed: list[tuple[Replica, int]] = []

        def kill(connection: Connection) -> None:
            pid = connection.process
            own = [replica for replica in cluster.replicas.values() if pid and replica.pid == pid]
            killed.extend((replica, replica.signal(signal.SIGKILL)) for replica in own)
            connection.reset()

        proxy: Proxy = getattr(cluster, self.line)
        with proxy.at(self.moment, kill) as watch:
            try:
                async with asyncio.timeout(PATIENCE):
                    await watch.struck
            except TimeoutError:
                raise NoEffect("The moment did not come.") from None
        for replica, pid in killed:
            end = await _ended(replica, pid)
            if end.status == -signal.SIGKILL:
                return f"{replica.name} ({pid}) ended by SIGKILL at {self.moment.name}"
        raise NoEffect("The client was none of the services' processes, or ended otherwise.")

    async def heal(self, cluster: Cluster) -> None:
        """It starts by itself."""


@dataclass(frozen=True)
class AskedToEnd:
    """SIGTERM: it finishes or gives back what is in flight, and exits with 0."""

    replica: str

    @property
    def name(self) -> str:
        return f"{self.replica} asked to end"

    async def strike(self, cluster: Cluster) -> str:
        pid = await asked_to_end(cluster, self.replica)
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


@dataclass(frozen=True)
class Crowded:
    """Several more processes of a service at once; at the end they are asked to end."""

    service: str
    count: int

    @property
    def name(self) -> str:
        return f"{self.count} processes of {self.service} at once"

    async def strike(self, cluster: Cluster) -> str:
        while len(cluster.of(self.service)) < self.count:
            cluster.add(self.service).keep()
        pids = await asyncio.gather(*(replica.answering() for replica in cluster.of(self.service)))
        await asyncio.sleep(3)
        return f"processes {', '.join(map(str, pids))} worked side by side"

    async def heal(self, cluster: Cluster) -> None:
        extra = cluster.of(self.service)[REPLICAS[self.service] :]
        statuses = await asyncio.gather(*(replica.close() for replica in extra))
        for replica, status in zip(extra, statuses, strict=True):
            del cluster.replicas[replica.name]
            if status:
                raise Misbehaved(f"{replica.name} ended with {status} after SIGTERM.")
