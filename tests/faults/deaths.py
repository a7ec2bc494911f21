"""Faults of processes: killed anywhere, killed at a kill point, terminated, paused."""

import asyncio
import signal
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from events.killpoints import KillPoint
from tests.faults.armed import DEATH_LOG
from tests.faults.cluster import REPLICAS, Cluster
from tests.faults.fault import Misbehaved, NoEffect
from tests.faults.moments import Moment
from tests.faults.proxy import Connection, Proxy
from tests.faults.replica import Ended, NotServing, Replica

PATIENCE: Final = 60.0
"""Seconds within which a process must have ended, under load."""
INTERRUPTED_SECONDS: Final = 1.0
WORKING_SECONDS: Final = 2.0
"""A refund fails only if it is under way when an interruption begins, so they are short and frequent."""


async def _running(cluster: Cluster, name: str) -> tuple[Replica, int]:
    """The replica and its process id, once the process serves. Raises NoEffect."""
    replica = cluster.replicas[name]
    try:
        return replica, await replica.wait_until_serving(PATIENCE)
    except NotServing as error:
        raise NoEffect(str(error)) from error


async def terminate(cluster: Cluster, name: str) -> int:
    """Sends SIGTERM and returns the process id after it has exited with 0. Raises NoEffect or Misbehaved."""
    replica, pid = await _running(cluster, name)
    replica.signal(signal.SIGTERM)
    end = await _ended(replica, pid)
    if end.status:
        raise Misbehaved(f"{name} exited with {end.status} after SIGTERM.")
    return pid


async def _ended(replica: Replica, pid: int) -> Ended:
    try:
        async with asyncio.timeout(PATIENCE):
            return await replica.wait_for_end(pid)
    except TimeoutError:
        raise NoEffect(f"{replica.name} ({pid}) is still running.") from None


def _signal_all(replicas: Collection[Replica], number: signal.Signals) -> None:
    """Sends a signal to those that are running."""
    for replica in replicas:
        with suppress(ProcessLookupError):
            replica.signal(number)


@dataclass(frozen=True)
class Killed:
    """SIGKILL at any point."""

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
        await cluster.replicas[self.replica].wait_until_serving()


@dataclass(frozen=True)
class KilledAt:
    """SIGKILL at a kill point, in a task whose name contains `task`."""

    replica: str
    task: str
    point: KillPoint
    interrupts: Literal["database", "ledger", "broker", "mail", "provider"] | None = None
    """A proxy that refuses connections from time to time, so that work is postponed and claimed again."""

    @property
    def name(self) -> str:
        return f"{self.replica} killed: {self.task}, {self.point}"

    async def strike(self, cluster: Cluster) -> str:
        replica, pid = await _running(cluster, self.replica)
        offset = replica.log.stat().st_size
        replica.arm_file.write_text(f"{self.point} {self.task}\n", encoding="utf-8")
        replica.signal(signal.SIGUSR1)
        interrupting = asyncio.create_task(self._interrupt(cluster))
        try:
            end = await _ended(replica, pid)
        finally:
            interrupting.cancel()
            await asyncio.gather(interrupting, return_exceptions=True)
        with replica.log.open("rb") as log:
            log.seek(offset)
            lines = log.read().decode(errors="replace").splitlines()
        prefix = f'{DEATH_LOG} {self.point} in "'
        deaths = [line for line in lines if line.startswith(prefix) and self.task in line]
        if end.status != -signal.SIGKILL or not deaths:
            raise NoEffect(f"{self.replica} ended with {end.status}, but not at the kill point.")
        return f"process {pid} {deaths[-1]}"

    async def _interrupt(self, cluster: Cluster) -> None:
        """Makes work fail from time to time; the service's other replicas are stopped, so can't claim it."""
        if self.interrupts is None:
            return
        proxy: Proxy = getattr(cluster, self.interrupts)
        others = [
            r for r in cluster.replicas_of(cluster.replicas[self.replica].service) if r.name != self.replica
        ]
        try:
            _signal_all(others, signal.SIGSTOP)
            while True:
                await proxy.refuse()
                await asyncio.sleep(INTERRUPTED_SECONDS)
                await proxy.accept()
                await asyncio.sleep(WORKING_SECONDS)
        finally:
            await proxy.accept()
            _signal_all(others, signal.SIGCONT)

    async def heal(self, cluster: Cluster) -> None:
        replica = cluster.replicas[self.replica]
        if replica.arm_file.exists():
            replica.arm_file.unlink()
            await replica.wait_until_serving()


@dataclass(frozen=True)
class KilledByMoment:
    """SIGKILL to the client's process at a moment of the protocol."""

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
        raise NoEffect("The client was not a process of a service, or did not end by SIGKILL.")

    async def heal(self, cluster: Cluster) -> None:
        """Its replica has restarted it."""


@dataclass(frozen=True)
class Sigterm:
    """SIGTERM: the process finishes or releases its work, and exits with 0."""

    replica: str

    @property
    def name(self) -> str:
        return f"{self.replica} terminated"

    async def strike(self, cluster: Cluster) -> str:
        pid = await terminate(cluster, self.replica)
        return f"process {pid} exited with 0 after SIGTERM"

    async def heal(self, cluster: Cluster) -> None:
        await cluster.replicas[self.replica].wait_until_serving()


@dataclass(frozen=True)
class Paused:
    """SIGSTOP for some time: its claims expire and others take over, then it continues."""

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
            state = replica.process_state()
        finally:
            if replica.pid == pid:
                replica.signal(signal.SIGCONT)
        if state != "T":
            raise NoEffect(f"{self.replica} ({pid}) was not stopped: {state}.")
        return f"process {pid} was stopped for {self.seconds:.0f} s"

    async def heal(self, cluster: Cluster) -> None:
        """`strike` has continued it."""


@dataclass(frozen=True)
class ScaledOut:
    """A service is scaled out to `count` processes, and back."""

    service: str
    count: int

    @property
    def name(self) -> str:
        return f"{self.service} scaled out to {self.count} processes"

    async def strike(self, cluster: Cluster) -> str:
        while len(cluster.replicas_of(self.service)) < self.count:
            cluster.add(self.service).supervise()
        pids = await asyncio.gather(
            *(replica.wait_until_serving() for replica in cluster.replicas_of(self.service))
        )
        await asyncio.sleep(3)
        return f"processes {', '.join(map(str, pids))} worked side by side"

    async def heal(self, cluster: Cluster) -> None:
        extra = cluster.replicas_of(self.service)[REPLICAS[self.service] :]
        statuses = await asyncio.gather(*(replica.stop() for replica in extra))
        for replica, status in zip(extra, statuses, strict=True):
            del cluster.replicas[replica.name]
            if status:
                raise Misbehaved(f"{replica.name} exited with {status} after SIGTERM.")
