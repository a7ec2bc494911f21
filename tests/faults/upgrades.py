"""Faults of upgrades: processes are replaced by the previous version's and back, while others run on."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from tests.faults.cluster import Cluster
from tests.faults.deaths import PATIENCE, terminate
from tests.faults.fault import Misbehaved, NoEffect
from tests.faults.replica import ROOT, NotServing


@dataclass(frozen=True)
class RolledBack:
    """Replicas run the previous version's code for some time: each is replaced in turn, and later back.

    The schema and the settings stay this checkout's. Old processes continue the work of new ones, and new
    processes that of old ones.
    """

    replicas: tuple[str, ...]
    seconds: float
    """How long all of them run the previous version."""

    @property
    def name(self) -> str:
        [first, *others] = self.replicas
        return f"previous version for {f'{len(self.replicas)} processes in turn' if others else first}"

    async def strike(self, cluster: Cluster) -> str:
        replaced = [await _replace(cluster, name, cluster.previous.folder) for name in self.replicas]
        await asyncio.sleep(self.seconds)
        return f"{'; '.join(replaced)}, of {cluster.previous.commit}"

    async def heal(self, cluster: Cluster) -> None:
        for name in self.replicas:
            if cluster.replicas[name].code != ROOT:
                await _replace(cluster, name, ROOT)


async def _replace(cluster: Cluster, name: str, code: Path) -> str:
    """Replaces the replica's process by one that runs this code, and returns the evidence."""
    replica = cluster.replicas[name]
    replica.code = code
    before = await terminate(cluster, name)
    try:
        after = await replica.wait_until_serving(PATIENCE)
    except NotServing as error:
        raise Misbehaved(f"{error} Its code is in {code}.") from error
    if replica.code_folders() != str(code):
        raise NoEffect(f"{name} ({after}) runs the code in {replica.code_folders()}, not in {code}.")
    return f"{name}: process {after} replaced {before}"
