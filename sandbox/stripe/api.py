"""Stripe's paths: each request is checked, performed and answered, and the fault plan interferes."""

from dataclasses import dataclass, field
from typing import Final

import msgspec
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from sandbox.stripe import answers
from sandbox.stripe.account import Account, Answer, Request
from sandbox.stripe.connection import Connection
from sandbox.stripe.errors import StripeRefusal, key_in_use, unauthorized
from sandbox.stripe.faults import BEFORE, Behaviour, FaultPlan, Step
from sandbox.stripe.forms import Form
from sandbox.stripe.objects import new_id

PATHS: Final = (
    ("POST", "/v1/payment_intents", Step.CREATE),
    ("POST", "/v1/payment_intents/{target}/confirm", Step.CONFIRM),
    ("GET", "/v1/payment_intents", Step.LIST),
    ("GET", "/v1/payment_intents/search", Step.SEARCH),
    ("GET", "/v1/payment_intents/{target}", Step.RETRIEVE),
    ("POST", "/v1/payment_intents/{target}/cancel", Step.CANCEL),
    ("POST", "/v1/refunds", Step.REFUND),
    ("GET", "/v1/refunds", Step.LIST_REFUNDS),
    ("GET", "/v1/refunds/{target}", Step.RETRIEVE_REFUND),
)
"""The first match counts. The busiest paths come first."""


@dataclass
class StripeApi:
    """Stripe's API on one account."""

    account: Account
    faults: FaultPlan = field(default_factory=FaultPlan)
    api_key: str | None = None
    """The only API key to accept. None accepts any."""
    in_use: set[str] = field(default_factory=set)
    """Idempotency keys of requests that are under way."""

    def routes(self) -> list[BaseRoute]:
        """Returns a route for each of PATHS."""
        return [Route(path, Endpoint(self, step), methods=[method]) for method, path, step in PATHS]


class Endpoint:
    """One path, as an ASGI application."""

    def __init__(self, api: StripeApi, step: Step) -> None:
        self._api = api
        self._step = step

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        connection = Connection(scope, receive, send)
        try:
            if not self._authorized(connection):
                raise unauthorized()
            request = await self._read(scope, connection)
            await self._serve(connection, request)
        except StripeRefusal as refusal:
            await refuse(connection, refusal)

    async def _read(self, scope: Scope, connection: Connection) -> Request:
        body = await connection.body()
        if scope["method"] == "GET":
            encoded, key = scope["query_string"], None
        else:
            encoded, key = body, connection.headers.get(b"idempotency-key")
        return Request(
            step=self._step,
            target=scope["path_params"].get("target", ""),
            path=scope["path"],
            form=Form(encoded.decode(errors="replace")),
            key=key.decode("latin-1") if key else None,
        )

    async def _serve(self, connection: Connection, request: Request) -> None:
        """Checks limits first, then keys, then parameters, and then does the work, as Stripe does."""
        account, faults, in_use = self._api.account, self._api.faults, self._api.in_use
        refusal: StripeRefusal | None = None
        answer: Answer | None = None
        try:
            answer = account.replay(request)
        except StripeRefusal as reused:
            refusal = reused
        if request.key in in_use:
            refusal = key_in_use(str(request.key))

        order_id, behaviour = None, None
        if not faults.is_empty:
            order_id = account.order_of(request)
            executes = answer is None and refusal is None
            behaviour = faults.choose(
                request.step, order_id, executes=executes, saves=request.key is not None
            )
        if behaviour in BEFORE:
            await answers.deny(connection, request, behaviour, account.timing)
            faults.record(behaviour, request.step, order_id)
            return
        if refusal:
            raise refusal
        if answer is None:
            if request.key:
                in_use.add(request.key)
            try:
                if behaviour is Behaviour.SLOW:
                    await answers.pause(account.timing)
                answer, took_effect = account.perform(request, behaviour)
            finally:
                in_use.discard(request.key or "")
            if behaviour is not None and (took_effect or behaviour is Behaviour.SLOW):
                faults.record(behaviour, request.step, order_id)
                behaviour = None
        if behaviour is None:
            await connection.answer(answer.status, answer.body, answers.headers(answer))
        elif await answers.spoil(connection, answer, behaviour, account.timing):
            faults.record(behaviour, request.step, order_id)

    def _authorized(self, connection: Connection) -> bool:
        """Returns whether the bearer token is the API key: https://docs.stripe.com/api/authentication."""
        if self._api.api_key is None:
            return True
        return connection.headers.get(b"authorization") == f"Bearer {self._api.api_key}".encode()


async def refuse(connection: Connection, refusal: StripeRefusal) -> None:
    """Answers with the error."""
    body = msgspec.json.encode({"error": refusal.error})
    await connection.answer(refusal.status, body, {b"request-id": new_id("req").encode()})


async def unrecognized(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a path that this server does not have."""
    message = f"Unrecognized request URL ({scope['method']}: {scope['path']})."
    await refuse(Connection(scope, receive, send), StripeRefusal(404, "invalid_request_error", message))
