"""Faults of upgrades: processes are replaced by the previous version's, and back, while the others go on."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from tests.faults.cluster import Cluster
from tests.faults.deaths import PATIENCE, asked_to_end
from tests.faults.fault import Misbehaved, NoEffect
from tests.faults.replica import ROOT, NotServing


@dataclass(frozen=True)
class RolledBack:
    """Replicas run the previous version's code for a while: each in turn is replaced by it, and later back.

    The schema and what the processes are told stay this checkout's. The old processes take work that the new
    ones left, and the other way round.
    """

    replicas: tuple[str, ...]
    seconds: float
    """For how long all of them run the previous version."""

    @property
    def name(self) -> str:
        [first, *others] = self.replicas
        return f"previous version for {f'{len(self.replicas)} processes in turn' if others else first}"

    async def strike(self, cluster: Cluster) -> str:
        took = [await _replace(cluster, name, cluster.previous.folder) for name in self.replicas]
        await asyncio.sleep(self.seconds)
        return f"{'; '.join(took)}, of {cluster.previous.commit}"

    async def heal(self, cluster: Cluster) -> None:
        for name in self.replicas:
            if cluster.replicas[name].code != ROOT:
                await _replace(cluster, name, ROOT)


async def _replace(cluster: Cluster, name: str, code: Path) -> str:
    """Ends the replica's process in order and waits until one of this code serves; which took whose place."""
    replica = cluster.replicas[name]
    replica.code = code
    before = await asked_to_end(cluster, name)
    try:
        after = await replica.answering(PATIENCE)
    except NotServing as error:
        raise Misbehaved(f"{error} Its code is in {code}.") from error
    if replica.folders_said() != str(code):
        raise NoEffect(f"{name} ({after}) runs the code in {replica.folders_said()}, not in {code}.")
    return f"{name}: process {after} took the place of {before}"
