"""Faults of the payment provider: the Stripe-compatible server misbehaves as told, and says that it did."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx

from sandbox.stripe import control
from sandbox.stripe.faults import Behaviour, Step
from tests.faults.cluster import Cluster
from tests.faults.fault import NoEffect

PATIENCE: Final = 20.0
STEPS: Final = (Step.CREATE, Step.CONFIRM, Step.CANCEL, Step.REFUND)
"""What billing asks for all the time, the most frequent first."""
AWAY: Final = (Behaviour.UNAVAILABLE, Behaviour.RATE_LIMITED, Behaviour.ERROR, Behaviour.REFUSED)
"""How a provider behaves that is out of order."""


@dataclass(frozen=True)
class Misbehaves:
    """The next requests of a step are answered badly."""

    behaviour: Behaviour
    step: Step
    times: int

    @property
    def name(self) -> str:
        return f"provider: {self.step} {self.behaviour}"

    async def strike(self, cluster: Cluster) -> str:
        async with _control(cluster) as told:
            before = await told.happened(self.behaviour)
            await told.script(self.behaviour, step=self.step, times=self.times)
            try:
                async with asyncio.timeout(PATIENCE):
                    while (now := await told.happened(self.behaviour)) == before:
                        await asyncio.sleep(0.1)
            except TimeoutError:
                raise NoEffect(f"Nobody asked for {self.step} so that it could.") from None
        return f"{now - before} requests were answered so"

    async def heal(self, cluster: Cluster) -> None:
        await _behave(cluster)


@dataclass(frozen=True)
class Away:
    """For a while every request is answered badly."""

    behaviour: Behaviour
    seconds: float

    @property
    def name(self) -> str:
        return f"provider: {self.behaviour} for {self.seconds:.0f} s"

    async def strike(self, cluster: Cluster) -> str:
        async with _control(cluster) as told:
            before = await told.happened(self.behaviour)
            await told.outage(self.behaviour, self.seconds)
            await asyncio.sleep(self.seconds)
            now = await told.happened(self.behaviour)
        if now == before:
            raise NoEffect("Nobody asked.")
        return f"{now - before} requests were answered so"

    async def heal(self, cluster: Cluster) -> None:
        await _behave(cluster)


async def _behave(cluster: Cluster) -> None:
    """The server behaves from now on; it may be dead and coming back just now."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                async with _control(cluster) as told:
                    return await told.reset()
            except NoEffect:
                await asyncio.sleep(0.2)


@asynccontextmanager
async def _control(cluster: Cluster) -> AsyncIterator[control.Control]:
    """The server's control API, past the proxy. Raises NoEffect where it does not answer."""
    try:
        async with control.connect(f"http://127.0.0.1:{cluster.provider_port}") as told:
            yield told
    except httpx.HTTPError as error:
        raise NoEffect(f"The provider does not answer: {error!r}") from error
