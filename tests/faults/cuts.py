"""Faults of the network, made by the proxies before PostgreSQL, RabbitMQ and the mail server."""

import asyncio
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tests.faults.cluster import Cluster, Provider
from tests.faults.fault import NoEffect
from tests.faults.proxy import COMMIT, MAIL, PAYMENT, PUBLISH, Moment, Proxy

Line: TypeAlias = Literal["database", "ledger", "broker", "mail", "provider"]
"""A proxy of the cluster, by its name."""
LINES: Final[dict[Provider, tuple[Line, ...]]] = {
    "simulated": ("database", "ledger", "broker", "mail"),
    "stripe": ("database", "provider", "broker", "mail"),
}
"""Those that are in use, by payment provider."""
MOMENTS: Final[dict[Line, Moment]] = {
    "database": COMMIT,
    "ledger": COMMIT,
    "broker": PUBLISH,
    "mail": MAIL,
    "provider": PAYMENT,
}
"""Whose answer gets lost on each line."""
PATIENCE: Final = 20.0


def _proxy(cluster: Cluster, line: Line) -> Proxy:
    proxy = getattr(cluster, line)
    assert isinstance(proxy, Proxy)
    return proxy


async def _in_use(cluster: Cluster, line: Line) -> Proxy:
    """The proxy, once there are connections. Raises NoEffect when nobody connects."""
    proxy = _proxy(cluster, line)
    try:
        async with asyncio.timeout(PATIENCE):
            while not proxy.connections:
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise NoEffect("Nobody is connected.") from None
    return proxy


@dataclass(frozen=True)
class Cut:
    """Every connection is reset, and may be made again at once."""

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
    """For a while every connection is reset and none is made."""

    line: Line
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.line}: away for {self.seconds:.0f} s"

    async def strike(self, cluster: Cluster) -> str:
        proxy = await _in_use(cluster, self.line)
        count = await proxy.refuse()
        try:
            await asyncio.sleep(self.seconds)
        finally:
            await proxy.accept()
        return f"{count} connections were reset and none could be made for {self.seconds:.0f} s"

    async def heal(self, cluster: Cluster) -> None:
        """It accepts again since the end of `strike`."""


@dataclass(frozen=True)
class Silenced:
    """A black hole: nothing goes through the connections there are, and nobody is told. New ones work."""

    line: Line
    seconds: float
    """Until both sides are told at last."""

    @property
    def name(self) -> str:
        return f"{self.line}: connections silent for {self.seconds:.0f} s"

    async def strike(self, cluster: Cluster) -> str:
        count = (await _in_use(cluster, self.line)).silence()
        await asyncio.sleep(self.seconds)
        return f"{count} connections went silent for {self.seconds:.0f} s"

    async def heal(self, cluster: Cluster) -> None:
        _proxy(cluster, self.line).forget_silent()


@dataclass(frozen=True)
class AnswerLost:
    """The work is done, and whoever asked for it never gets to know."""

    line: Line

    @property
    def name(self) -> str:
        return f"{self.line}: the answer to a {MOMENTS[self.line].name} lost"

    async def strike(self, cluster: Cluster) -> str:
        proxy = _proxy(cluster, self.line)
        try:
            async with asyncio.timeout(PATIENCE):
                await proxy.lose_answer(MOMENTS[self.line])
        except TimeoutError:
            raise NoEffect(f"There was no {MOMENTS[self.line].name}.") from None
        return f"a {MOMENTS[self.line].name} was answered, and its connection was reset instead"

    async def heal(self, cluster: Cluster) -> None:
        """Nothing is left broken."""
