"""The server of `sandbox.stripe` in the test's own process, where what it holds can be seen."""

import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from msgspec.structs import replace
from starlette.types import Receive, Scope, Send

from chassis.process import listen
from sandbox.stripe import ledger
from sandbox.stripe.account import Account
from sandbox.stripe.api import PATHS, Desk
from sandbox.stripe.connection import Connection
from sandbox.stripe.ledger import Totals
from sandbox.stripe.objects import Intent, Refund
from sandbox.stripe.personality import Behaviour, Pace, Step
from sandbox.stripe.process import application, serving
from tests.waiting import eventually

BRISK: Final = Pace(search_seconds=0.0, processing_seconds=0.2, slow_seconds=1.5, drip_seconds=3.0)
"""Longer than the clients of these tests wait for an answer, and not much longer."""


@dataclass
class StripeDesk:
    """What the server knows, and what it was asked."""

    desk: Desk
    url: str = ""
    ago: float = 0.0
    """How many seconds its clock is behind: what it does now was done that long ago."""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and idempotency key of every request."""
    headers: dict[str, str] = field(default_factory=dict)
    """Those of the last request."""
    refusals: dict[Step, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """Status and error with which the next request of a step is answered, in place of being served."""

    @property
    def pace(self) -> Pace:
        return self.desk.account.pace

    def fail(self, order_id: object, step: Step, *behaviours: Behaviour) -> None:
        """The next requests of this step for this order go wrong, each in its way."""
        for behaviour in behaviours:
            self.desk.personality.script(behaviour, step, str(order_id), 1)

    def refuse(self, step: Step, status: int, error: dict[str, str]) -> None:
        """The next request of this step is answered with this error, and not looked at."""
        self.refusals[step] = status, error

    def happened(self, behaviour: Behaviour, order_id: object) -> int:
        """How often a behaviour has had its effect on an order."""
        effects = self.desk.personality.told()
        return sum(e.times for e in effects if (e.behaviour, e.order_id) == (behaviour, str(order_id)))

    async def has_happened(self, behaviour: Behaviour, order_id: object) -> None:
        """Returns once the behaviour has had its effect on the order: the client may know first."""

        async def times() -> int:
            return self.happened(behaviour, order_id)

        await eventually(times, bool)

    def of_order(self, order_id: object) -> list[Intent]:
        """The order's intents, oldest first."""
        self.desk.account.settle()
        found = self.desk.account.ledger.labelled([("order_id", str(order_id))])
        return [intent for intent, _, _ in reversed(found)]

    def refunds_of(self, order_id: object) -> list[Refund]:
        """What was given back of the order."""
        return self.desk.account.ledger.refunds_of(str(order_id))

    def captured(self, order_id: object) -> list[int]:
        """Every amount captured for the order."""
        return [i.amount_received for i in self.of_order(order_id) if i.status == "succeeded"]

    def given_back(self, order_id: object) -> list[int]:
        """Every amount given back for the order."""
        return [refund.amount for refund in self.refunds_of(order_id) if refund.status != "failed"]

    def touch(self, intent: Intent) -> None:
        """The intent changed just now, so its change is not searchable yet."""
        with self.desk.account.ledger.transaction():
            self.desk.account.ledger.change_intent(intent, time.time())

    async def search(self, query: str) -> list[tuple[str, str]]:
        """Ids and statuses of the intents that search finds."""
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as http:
            found = (await http.get("/v1/payment_intents/search", params={"query": query})).json()
        return [(intent["id"], intent["status"]) for intent in found["data"]]

    def totals(self) -> Totals:
        """The ledger in figures."""
        return self.desk.account.ledger.totals()

    def begin_outage(self) -> None:
        """503 until the outage is ended."""
        self.desk.personality.begin_outage(Behaviour.UNAVAILABLE, 3600)

    def behave(self) -> None:
        """It works again, whatever it was told."""
        self.desk.personality.reset()

    def forget_keys(self) -> None:
        """A day has passed."""
        self.desk.account.forget_keys()


@asynccontextmanager
async def serving_desk(pace: Pace = BRISK, file: Path | None = None) -> AsyncIterator[StripeDesk]:
    """The server on a free port, scripted; without a file its ledger is in memory."""
    pace = replace(pace)  # a test may change its own
    with ledger.opened(file) as opened, listen("127.0.0.1", 0) as listener:
        account = Account(opened, pace, clock=lambda: time.time() - desk.ago)
        desk = StripeDesk(Desk(account), f"http://127.0.0.1:{listener.getsockname()[1]}")
        app = application(desk.desk, scripted=True)

        async def noted(scope: Scope, receive: Receive, send: Send) -> None:
            desk.headers = dict(_decoded(scope["headers"]))
            desk.requests.append((scope["path"], desk.headers.get("idempotency-key")))
            refusal = desk.refusals.pop(_step(scope), None) if desk.refusals else None
            if refusal:
                status, error = refusal
                await Connection(scope, receive, send).say(status, {"error": error})
            else:
                await app(scope, receive, send)

        async with serving(noted, listener):
            yield desk


def _step(scope: Scope) -> Step:
    """What the request asks for."""
    path = re.sub(r"/(pi|re)_\w+", "/{target}", scope["path"])
    return next(step for method, known, step in PATHS if (method, known) == (scope["method"], path))


def _decoded(headers: list[tuple[bytes, bytes]]) -> Iterator[tuple[str, str]]:
    for name, value in headers:
        yield name.decode("latin-1"), value.decode("latin-1")
