"""The client of the personality: how a test tells the server what to do, and asks what it did."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from uuid import UUID

import httpx
import msgspec
from msgspec import Struct

from sandbox.stripe.ledger import Totals
from sandbox.stripe.objects import Intent, Refund
from sandbox.stripe.personality import Behaviour, Effect, Pace, Step

T = TypeVar("T")


class OrderRecord(Struct, frozen=True):
    """What the ledger holds of one order, oldest first."""

    intents: list[Intent]
    refunds: list[Refund]

    @property
    def captured(self) -> list[int]:
        """Every amount captured."""
        return [intent.amount_received for intent in self.intents if intent.status == "succeeded"]

    @property
    def given_back(self) -> list[int]:
        """Every amount given back."""
        return [refund.amount for refund in self.refunds if refund.status != "failed"]


class Script(Struct, forbid_unknown_fields=True):
    """The next requests of a step misbehave; without an order those of any."""

    behaviour: Behaviour
    step: Step
    order_id: str | None = None
    times: int = 1


class Rate(Struct, forbid_unknown_fields=True):
    """A share (0 to 1) of a step's requests misbehaves; without a step of all.

    A seed draws the same again.
    """

    behaviour: Behaviour
    share: float
    step: Step | None = None
    seed: int | None = None


class Outage(Struct, forbid_unknown_fields=True):
    """Every request misbehaves for some seconds."""

    behaviour: Behaviour
    seconds: float


class Control:
    """A server started with `--scripted`. Raises httpx.HTTPError where it does not answer."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def script(
        self, behaviour: Behaviour, *, step: Step, order_id: UUID | str | None = None, times: int = 1
    ) -> None:
        """The next `times` requests of the step misbehave so, of this order or of any."""
        order = None if order_id is None else str(order_id)
        await self._post("scripts", Script(behaviour, step, order, times))

    async def rate(
        self, behaviour: Behaviour, *, share: float, step: Step | None = None, seed: int | None = None
    ) -> None:
        """This share of the step's requests misbehaves so from now on."""
        await self._post("rates", Rate(behaviour, share, step, seed))

    async def outage(self, behaviour: Behaviour, seconds: float) -> None:
        """Every request misbehaves so for this time; 0 seconds end it."""
        await self._post("outages", Outage(behaviour, seconds))

    async def pace(self, pace: Pace) -> None:
        """How long things take from now on."""
        await self._post("pace", pace)

    async def reset(self) -> None:
        """The server behaves from now on. What has had its effect stays counted."""
        await self._post("reset", None)

    async def forget_keys(self) -> None:
        """A day has passed: no idempotency key is known any more."""
        await self._post("forget_keys", None)

    async def effects(self) -> list[Effect]:
        """What has had its effect since the server was started."""
        return await self._get("effects", list[Effect])

    async def happened(self, behaviour: Behaviour, order_id: UUID | str | None = None) -> int:
        """How often a behaviour has had its effect, with this order or with any."""
        order = None if order_id is None else str(order_id)
        return sum(
            effect.times
            for effect in await self.effects()
            if effect.behaviour is behaviour and order in (None, effect.order_id)
        )

    async def totals(self) -> Totals:
        """The ledger in figures."""
        return await self._get("ledger", Totals)

    async def order(self, order_id: UUID | str) -> OrderRecord:
        """What the ledger holds of an order."""
        return await self._get(f"orders/{order_id}", OrderRecord)

    async def _post(self, path: str, content: object) -> None:
        answer = await self._client.post(f"/_personality/{path}", content=msgspec.json.encode(content))
        answer.raise_for_status()

    async def _get(self, path: str, shape: type[T]) -> T:
        answer = await self._client.get(f"/_personality/{path}")
        answer.raise_for_status()
        return msgspec.json.decode(answer.content, type=shape)


@asynccontextmanager
async def connect(url: str, **client: Any) -> AsyncIterator[Control]:
    """The personality of the server at this URL."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=10.0, **client) as connection:
        yield Control(connection)
