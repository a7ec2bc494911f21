"""Faults of the network, made by the proxies in front of the servers."""

import asyncio
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tests.faults.cluster import Cluster, Provider
from tests.faults.fault import NoEffect
from tests.faults.lanes import AT_ONCE, Pace
from tests.faults.moments import (
    CHANGE_HALF_ANSWERED,
    CHANGE_UNANSWERED,
    CHANGE_UNSENT,
    COMMIT_UNANSWERED,
    COMMIT_UNSENT,
    DELIVERY_UNACKNOWLEDGED,
    DELIVERY_UNRECEIVED,
    MAIL_UNANSWERED,
    MAIL_UNFINISHED,
    PUBLISH_UNCONFIRMED,
    PUBLISH_UNSENT,
    Moment,
)
from tests.faults.proxy import Proxy

Line: TypeAlias = Literal["database", "ledger", "broker", "mail", "provider"]
"""The name of one of the cluster's proxies."""
LINES: Final[dict[Provider, tuple[Line, ...]]] = {
    "simulated": ("database", "ledger", "broker", "mail"),
    "stripe": ("database", "provider", "broker", "mail"),
}
"""The proxies in use, by payment provider."""
MOMENTS: Final[dict[Line, tuple[Moment, ...]]] = {
    "database": (COMMIT_UNANSWERED, COMMIT_UNSENT),
    "ledger": (COMMIT_UNANSWERED, COMMIT_UNSENT),
    "broker": (PUBLISH_UNCONFIRMED, PUBLISH_UNSENT, DELIVERY_UNACKNOWLEDGED, DELIVERY_UNRECEIVED),
    "mail": (MAIL_UNANSWERED, MAIL_UNFINISHED),
    "provider": (CHANGE_UNANSWERED, CHANGE_UNSENT, CHANGE_HALF_ANSWERED),
}
"""The moments at which each line can be cut; at the first, the work is done and its answer is lost."""
PATIENCE: Final = 20.0


def _proxy(cluster: Cluster, line: Line) -> Proxy:
    proxy = getattr(cluster, line)
    assert isinstance(proxy, Proxy)
    return proxy


async def _in_use(cluster: Cluster, line: Line) -> Proxy:
    """The proxy, once it has connections. Raises NoEffect if none is made."""
    proxy = _proxy(cluster, line)
    try:
        async with asyncio.timeout(PATIENCE):
            while not proxy.connections:
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise NoEffect("There is no connection.") from None
    return proxy


@dataclass(frozen=True)
class Cut:
    """Every connection is reset; new ones work."""

    line: Line

    @property
    def name(self) -> str:
        return f"{self.line}: connections cut"

    async def strike(self, cluster: Cluster) -> str:
        count = (await _in_use(cluster, self.line)).cut()
        return f"{count} connections were reset"

    async def heal(self, cluster: Cluster) -> None:
        """Nothing is left broken."""


@dataclass(frozen=True)
class Refused:
    """Every connection is reset, and for some time new ones are refused."""

    line: Line
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.line}: refused for {self.seconds:.0f} s"

    async def strike(self, cluster: Cluster) -> str:
        proxy = await _in_use(cluster, self.line)
        count = await proxy.refuse()
        try:
            await asyncio.sleep(self.seconds)
        finally:
            await proxy.accept()
        return f"{count} connections were reset and none could be made for {self.seconds:.0f} s"

    async def heal(self, cluster: Cluster) -> None:
        """`strike` has ended it."""


@dataclass(frozen=True)
class Silenced:
    """Existing connections forward nothing, and neither side notices. New ones work."""

    line: Line
    seconds: float
    """Until both sides see a reset."""

    @property
    def name(self) -> str:
        return f"{self.line}: connections silent for {self.seconds:.0f} s"

    async def strike(self, cluster: Cluster) -> str:
        count = (await _in_use(cluster, self.line)).silence()
        await asyncio.sleep(self.seconds)
        return f"{count} connections went silent for {self.seconds:.0f} s"

    async def heal(self, cluster: Cluster) -> None:
        _proxy(cluster, self.line).reset_silent()


@dataclass(frozen=True)
class CutAt:
    """One connection is reset at a moment of its protocol."""

    line: Line
    moment: Moment

    @property
    def name(self) -> str:
        return f"{self.line}: {self.moment.name}"

    async def strike(self, cluster: Cluster) -> str:
        try:
            async with asyncio.timeout(PATIENCE):
                await _proxy(cluster, self.line).cut_at(self.moment)
        except TimeoutError:
            raise NoEffect("The moment did not come.") from None
        return f"{self.moment.name}: the connection was reset there"

    async def heal(self, cluster: Cluster) -> None:
        """Nothing is left broken."""


@dataclass(frozen=True)
class HalfOpen:
    """The server has lost every connection, and the clients do not notice."""

    line: Line
    seconds: float
    """Until the clients see a reset."""

    @property
    def name(self) -> str:
        return f"{self.line}: connections half open for {self.seconds:.0f} s"

    async def strike(self, cluster: Cluster) -> str:
        count = (await _in_use(cluster, self.line)).half_open()
        await asyncio.sleep(self.seconds)
        return f"{count} connections were half open for {self.seconds:.0f} s"

    async def heal(self, cluster: Cluster) -> None:
        _proxy(cluster, self.line).reset_silent()


@dataclass(frozen=True)
class Slow:
    """Every byte is delayed, in both directions."""

    line: Line
    pace: Pace
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.line}: slow for {self.seconds:.0f} s"

    async def strike(self, cluster: Cluster) -> str:
        proxy = await _in_use(cluster, self.line)
        before = proxy.delayed
        proxy.to_server = proxy.to_client = self.pace
        await asyncio.sleep(self.seconds)
        if proxy.delayed == before:
            raise NoEffect("No bytes were sent.")
        return f"{proxy.delayed - before} reads were delayed"

    async def heal(self, cluster: Cluster) -> None:
        proxy = _proxy(cluster, self.line)
        proxy.to_server = proxy.to_client = AT_ONCE
