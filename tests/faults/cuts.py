"""Faults of the network, made by the proxies before PostgreSQL, RabbitMQ and the mail server."""

import asyncio
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tests.faults.cluster import Cluster
from tests.faults.fault import NoEffect
from tests.proxy import Proxy

Line: TypeAlias = Literal["database", "ledger", "broker", "mail"]
"""A proxy of the cluster, by its name."""
LINES: Final[tuple[Line, ...]] = ("database", "ledger", "broker", "mail")


def _proxy(cluster: Cluster, line: Line) -> Proxy:
    proxy = getattr(cluster, line)
    assert isinstance(proxy, Proxy)
    return proxy


async def _connections(proxy: Proxy) -> int:
    """How many are open, once there are any. Raises NoEffect when nobody connects."""
    for _ in range(100):
        if proxy.connections:
            return proxy.connections
        await asyncio.sleep(0.1)
    raise NoEffect("Nobody is connected.")


@dataclass(frozen=True)
class Cut:
    """Every connection is reset, and may be made again at once."""

    line: Line

    @property
    def name(self) -> str:
        return f"{self.line}: connections cut"

    async def strike(self, cluster: Cluster) -> str:
        proxy = _proxy(cluster, self.line)
        count = await _connections(proxy)
        proxy.cut()
        return f"{count} connections were reset"

    async def heal(self, cluster: Cluster) -> None:
        """Nothing is left broken."""


@dataclass(frozen=True)
class Refused:
    """For a while every connection is reset and none is made."""

    line: Line
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.line}: away for {self.seconds:.0f} s"

    async def strike(self, cluster: Cluster) -> str:
        proxy = _proxy(cluster, self.line)
        count = await _connections(proxy)
        await proxy.refuse()
        try:
            await asyncio.sleep(self.seconds)
        finally:
            await proxy.accept()
        return f"{count} connections were reset and none could be made for {self.seconds:.0f} s"

    async def heal(self, cluster: Cluster) -> None:
        """It accepts again since the end of `strike`."""


@dataclass(frozen=True)
class Silenced:
    """Nothing goes through the connections there are, and nobody is told; new ones work."""

    line: Line

    @property
    def name(self) -> str:
        return f"{self.line}: connections silenced"

    async def strike(self, cluster: Cluster) -> str:
        proxy = _proxy(cluster, self.line)
        count = await _connections(proxy)
        proxy.silence()
        return f"{count} connections went silent"

    async def heal(self, cluster: Cluster) -> None:
        """Whoever waits on them has deadlines of their own."""
