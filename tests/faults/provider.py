"""Faults of the payment provider: the Stripe-compatible server misbehaves as scripted, and counts it."""

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
"""The requests that billing makes, the most frequent first."""
OUTAGES: Final = (Behaviour.UNAVAILABLE, Behaviour.RATE_LIMITED, Behaviour.ERROR, Behaviour.REFUSED)
"""The behaviours of a provider that is down."""


@dataclass(frozen=True)
class Misbehaves:
    """The next requests of a step get a wrong answer."""

    behaviour: Behaviour
    step: Step
    times: int

    @property
    def name(self) -> str:
        return f"provider: {self.step} {self.behaviour}"

    async def strike(self, cluster: Cluster) -> str:
        async with _control(cluster) as server:
            before = await server.happened(self.behaviour)
            await server.script(self.behaviour, step=self.step, times=self.times)
            try:
                async with asyncio.timeout(PATIENCE):
                    while (now := await server.happened(self.behaviour)) == before:
                        await asyncio.sleep(0.1)
            except TimeoutError:
                raise NoEffect(f"No request for {self.step} got this answer.") from None
        return f"{now - before} requests were answered like this"

    async def heal(self, cluster: Cluster) -> None:
        await _reset(cluster)


@dataclass(frozen=True)
class Outage:
    """For some time every request gets a wrong answer."""

    behaviour: Behaviour
    seconds: float

    @property
    def name(self) -> str:
        return f"provider: {self.behaviour} for {self.seconds:.0f} s"

    async def strike(self, cluster: Cluster) -> str:
        async with _control(cluster) as server:
            before = await server.happened(self.behaviour)
            await server.outage(self.behaviour, self.seconds)
            await asyncio.sleep(self.seconds)
            now = await server.happened(self.behaviour)
        if now == before:
            raise NoEffect("There was no request.")
        return f"{now - before} requests were answered like this"

    async def heal(self, cluster: Cluster) -> None:
        await _reset(cluster)


async def _reset(cluster: Cluster) -> None:
    """Ends all misbehaviour; waits for the server if it is being restarted."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                async with _control(cluster) as server:
                    return await server.reset()
            except NoEffect:
                await asyncio.sleep(0.2)


@asynccontextmanager
async def _control(cluster: Cluster) -> AsyncIterator[control.Control]:
    """The server's control API, without a proxy. Raises NoEffect if it does not answer."""
    try:
        async with control.connect(f"http://127.0.0.1:{cluster.provider_port}") as server:
            yield server
    except httpx.HTTPError as error:
        raise NoEffect(f"The provider does not answer: {error!r}") from error
