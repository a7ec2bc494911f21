"""The control API's client and messages: tests plan faults with it, and read the ledger."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from uuid import UUID

import httpx
import msgspec
from msgspec import Struct

from sandbox.stripe.faults import Behaviour, Effect, Step, Timing
from sandbox.stripe.ledger import Totals
from sandbox.stripe.objects import Intent, Refund

T = TypeVar("T")


class OrderRecord(Struct, frozen=True):
    """The ledger's intents and refunds of one order, oldest first."""

    intents: list[Intent]
    refunds: list[Refund]

    @property
    def captured(self) -> list[int]:
        """Every captured amount."""
        return [intent.amount_received for intent in self.intents if intent.status == "succeeded"]

    @property
    def given_back(self) -> list[int]:
        """Every refunded amount."""
        return [refund.amount for refund in self.refunds if refund.status != "failed"]


class Script(Struct, forbid_unknown_fields=True):
    """Applies a behaviour to the next requests of a step, of one order or of any."""

    behaviour: Behaviour
    step: Step
    order_id: str | None = None
    times: int = 1


class Rate(Struct, forbid_unknown_fields=True):
    """Applies a behaviour to a share (0 to 1) of the requests, of one step or of all.

    The same seed chooses the same requests.
    """

    behaviour: Behaviour
    share: float
    step: Step | None = None
    seed: int | None = None


class Outage(Struct, forbid_unknown_fields=True):
    """Applies a behaviour to every request for some seconds."""

    behaviour: Behaviour
    seconds: float


class Control:
    """The control API of one server. The methods raise httpx.HTTPError if it does not answer."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def script(
        self, behaviour: Behaviour, *, step: Step, order_id: UUID | str | None = None, times: int = 1
    ) -> None:
        """Applies the behaviour to the next `times` requests of the step, of this order or of any."""
        order = None if order_id is None else str(order_id)
        await self._post("scripts", Script(behaviour, step, order, times))

    async def rate(
        self, behaviour: Behaviour, *, share: float, step: Step | None = None, seed: int | None = None
    ) -> None:
        """Applies the behaviour to this share of the requests from now on, of one step or of all."""
        await self._post("rates", Rate(behaviour, share, step, seed))

    async def outage(self, behaviour: Behaviour, seconds: float) -> None:
        """Applies the behaviour to every request for this time. 0 seconds end the outage."""
        await self._post("outages", Outage(behaviour, seconds))

    async def set_timing(self, timing: Timing) -> None:
        """Changes how long things take."""
        await self._post("timing", timing)

    async def reset(self) -> None:
        """Drops every planned fault. The counts of effects stay."""
        await self._post("reset", None)

    async def forget_keys(self) -> None:
        """Forgets every idempotency key, as if a day had passed."""
        await self._post("forget_keys", None)

    async def effects(self) -> list[Effect]:
        """Counts the effects since the server's start, by behaviour, step and order."""
        return await self._get("effects", list[Effect])

    async def happened(self, behaviour: Behaviour, order_id: UUID | str | None = None) -> int:
        """Counts how often the behaviour took effect, on this order or on any."""
        order = None if order_id is None else str(order_id)
        return sum(
            effect.times
            for effect in await self.effects()
            if effect.behaviour is behaviour and order in (None, effect.order_id)
        )

    async def totals(self) -> Totals:
        """Returns the ledger's totals."""
        return await self._get("ledger", Totals)

    async def order(self, order_id: UUID | str) -> OrderRecord:
        """Returns the ledger's record of an order."""
        return await self._get(f"orders/{order_id}", OrderRecord)

    async def _post(self, path: str, content: object) -> None:
        answer = await self._client.post(f"/_control/{path}", content=msgspec.json.encode(content))
        answer.raise_for_status()

    async def _get(self, path: str, shape: type[T]) -> T:
        answer = await self._client.get(f"/_control/{path}")
        answer.raise_for_status()
        return msgspec.json.decode(answer.content, type=shape)


@asynccontextmanager
async def connect(url: str, **client: Any) -> AsyncIterator[Control]:
    """Connects to the control API of the server at this URL."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=10.0, **client) as connection:
        yield Control(connection)
