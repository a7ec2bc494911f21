"""The server of `sandbox.stripe` inside the test's process, which sees its requests and its ledger."""

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
from sandbox.stripe.api import PATHS, StripeApi
from sandbox.stripe.connection import Connection
from sandbox.stripe.faults import Behaviour, Step, Timing
from sandbox.stripe.ledger import Totals
from sandbox.stripe.objects import Intent, Refund
from sandbox.stripe.process import application, serving
from tests.waiting import eventually

BRISK: Final = Timing(search_seconds=0.0, processing_seconds=0.2, slow_seconds=1.5, drip_seconds=3.0)
"""Slow answers take a little longer than the clients of these tests wait."""


@dataclass
class StripeServer:
    """A running server: its state, and the requests that it got."""

    api: StripeApi
    url: str = ""
    ago: float = 0.0
    """How many seconds its clock is behind. It dates its work that long ago."""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and idempotency key of every request."""
    headers: dict[str, str] = field(default_factory=dict)
    """The headers of the last request."""
    refusals: dict[Step, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """Status and error that answer the next request of a step, which is not served."""

    @property
    def timing(self) -> Timing:
        return self.api.account.timing

    def fail(self, order_id: object, step: Step, *behaviours: Behaviour) -> None:
        """Plans these behaviours for the order's next requests of this step, one each."""
        for behaviour in behaviours:
            self.api.faults.script(behaviour, step, str(order_id), 1)

    def refuse(self, step: Step, status: int, error: dict[str, str]) -> None:
        """Answers the next request of this step with this error, without serving it."""
        self.refusals[step] = status, error

    def happened(self, behaviour: Behaviour, order_id: object) -> int:
        """Counts how often the behaviour took effect on the order."""
        effects = self.api.faults.effects()
        return sum(e.times for e in effects if (e.behaviour, e.order_id) == (behaviour, str(order_id)))

    async def has_happened(self, behaviour: Behaviour, order_id: object) -> None:
        """Waits until the behaviour has taken effect on the order. The client may notice first."""

        async def times() -> int:
            return self.happened(behaviour, order_id)

        await eventually(times, bool)

    def of_order(self, order_id: object) -> list[Intent]:
        """Returns the order's intents, oldest first."""
        self.api.account.finish_due()
        found = self.api.account.ledger.with_metadata([("order_id", str(order_id))])
        return [intent for intent, _, _ in reversed(found)]

    def refunds_of(self, order_id: object) -> list[Refund]:
        """Returns the order's refunds, oldest first."""
        return self.api.account.ledger.refunds_of(str(order_id))

    def captured(self, order_id: object) -> list[int]:
        """Returns every amount captured for the order."""
        return [i.amount_received for i in self.of_order(order_id) if i.status == "succeeded"]

    def given_back(self, order_id: object) -> list[int]:
        """Returns every amount refunded for the order."""
        return [refund.amount for refund in self.refunds_of(order_id) if refund.status != "failed"]

    def touch(self, intent: Intent) -> None:
        """Marks the intent as changed now, so that search does not show the change yet."""
        with self.api.account.ledger.transaction():
            self.api.account.ledger.change_intent(intent, time.time())

    async def search(self, query: str) -> list[tuple[str, str]]:
        """Returns ids and statuses of the intents that search finds."""
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as http:
            found = (await http.get("/v1/payment_intents/search", params={"query": query})).json()
        return [(intent["id"], intent["status"]) for intent in found["data"]]

    def totals(self) -> Totals:
        """Returns the ledger's totals."""
        return self.api.account.ledger.totals()

    def begin_outage(self) -> None:
        """Answers 503 until `behave` is called, at most an hour."""
        self.api.faults.begin_outage(Behaviour.UNAVAILABLE, 3600)

    def behave(self) -> None:
        """Drops every planned fault."""
        self.api.faults.reset()

    def forget_keys(self) -> None:
        """Forgets every idempotency key, as if a day had passed."""
        self.api.account.forget_keys()


@asynccontextmanager
async def stripe_server(timing: Timing = BRISK, file: Path | None = None) -> AsyncIterator[StripeServer]:
    """Serves on a free port, with the control API. Without a file the ledger is in memory."""
    timing = replace(timing)  # a test may change its own
    with ledger.opened(file) as opened, listen("127.0.0.1", 0) as listener:
        account = Account(opened, timing, clock=lambda: time.time() - server.ago)
        server = StripeServer(StripeApi(account), f"http://127.0.0.1:{listener.getsockname()[1]}")
        app = application(server.api, scripted=True)

        async def noted(scope: Scope, receive: Receive, send: Send) -> None:
            server.headers = dict(_decoded(scope["headers"]))
            server.requests.append((scope["path"], server.headers.get("idempotency-key")))
            refusal = server.refusals.pop(_step(scope), None) if server.refusals else None
            if refusal:
                status, error = refusal
                await Connection(scope, receive, send).answer_json(status, {"error": error})
            else:
                await app(scope, receive, send)

        async with serving(noted, listener):
            yield server


def _step(scope: Scope) -> Step:
    """What the request asks for."""
    path = re.sub(r"/(pi|re)_\w+", "/{target}", scope["path"])
    return next(step for method, known, step in PATHS if (method, known) == (scope["method"], path))


def _decoded(headers: list[tuple[bytes, bytes]]) -> Iterator[tuple[str, str]]:
    for name, value in headers:
        yield name.decode("latin-1"), value.decode("latin-1")
