"""The control API, under `/_control`. Only a server started with `--scripted` has it."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from sandbox.stripe.api import StripeApi
from sandbox.stripe.control import OrderRecord, Outage, Rate, Script
from sandbox.stripe.faults import Timing

T = TypeVar("T")

Handler = Callable[[Request], Awaitable[Response]]


def routes(api: StripeApi) -> list[BaseRoute]:
    """Returns the control API's routes for this server."""
    faults, account = api.faults, api.account

    def script(command: Script) -> None:
        faults.script(command.behaviour, command.step, command.order_id, command.times)

    def rate(command: Rate) -> None:
        faults.rate(command.behaviour, command.step, command.share, command.seed)

    def outage(command: Outage) -> None:
        faults.begin_outage(command.behaviour, command.seconds)

    def timing(command: Timing) -> None:
        account.timing = command

    def reset(_: None) -> None:
        faults.reset()

    def forget_keys(_: None) -> None:
        account.forget_keys()

    async def effects(_: Request) -> Response:
        return _json(faults.effects())

    async def ledger(_: Request) -> Response:
        account.finish_due()
        return _json(account.ledger.totals())

    async def order(request: Request) -> Response:
        account.finish_due()
        order_id: str = request.path_params["order_id"]
        found = account.ledger.with_metadata([("order_id", order_id)])
        oldest_first = [intent for intent, _, _ in reversed(found)]
        return _json(OrderRecord(oldest_first, account.ledger.refunds_of(order_id)))

    paths: Final = (
        Route("/scripts", _command(Script, script), methods=["POST"]),
        Route("/rates", _command(Rate, rate), methods=["POST"]),
        Route("/outages", _command(Outage, outage), methods=["POST"]),
        Route("/timing", _command(Timing, timing), methods=["POST"]),
        Route("/reset", _command(type(None), reset), methods=["POST"]),
        Route("/forget_keys", _command(type(None), forget_keys), methods=["POST"]),
        Route("/effects", effects),
        Route("/ledger", ledger),
        Route("/orders/{order_id}", order),
    )
    return [Mount("/_control", routes=paths)]


def _command(shape: type[T], do: Callable[[T], None]) -> Handler:
    """Makes a handler that passes the decoded body to `do`. It answers 204, or 400 if the body is invalid."""

    async def handle(request: Request) -> Response:
        try:
            content = msgspec.json.decode(await request.body() or b"null", type=shape)
        except msgspec.MsgspecError as error:
            return Response(str(error), 400)
        do(content)
        return Response(status_code=204)

    return handle


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
