"""The personality's paths, under `/_personality`: only where the server was started to be scripted."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from sandbox.stripe.api import Desk
from sandbox.stripe.control import OrderRecord, Outage, Rate, Script
from sandbox.stripe.personality import Pace

T = TypeVar("T")

Handler = Callable[[Request], Awaitable[Response]]


def routes(desk: Desk) -> list[BaseRoute]:
    """The paths, for this desk."""
    personality, account = desk.personality, desk.account

    def script(told: Script) -> None:
        personality.script(told.behaviour, told.step, told.order_id, told.times)

    def rate(told: Rate) -> None:
        personality.rate(told.behaviour, told.step, told.share, told.seed)

    def outage(told: Outage) -> None:
        personality.begin_outage(told.behaviour, told.seconds)

    def pace(told: Pace) -> None:
        account.pace = told

    def reset(_: None) -> None:
        personality.reset()

    def forget_keys(_: None) -> None:
        account.forget_keys()

    async def effects(_: Request) -> Response:
        return _json(personality.told())

    async def ledger(_: Request) -> Response:
        account.settle()
        return _json(account.ledger.totals())

    async def order(request: Request) -> Response:
        account.settle()
        order_id: str = request.path_params["order_id"]
        found = account.ledger.labelled([("order_id", order_id)])
        oldest_first = [intent for intent, _, _ in reversed(found)]
        return _json(OrderRecord(oldest_first, account.ledger.refunds_of(order_id)))

    told: Final = (
        Route("/scripts", _telling(Script, script), methods=["POST"]),
        Route("/rates", _telling(Rate, rate), methods=["POST"]),
        Route("/outages", _telling(Outage, outage), methods=["POST"]),
        Route("/pace", _telling(Pace, pace), methods=["POST"]),
        Route("/reset", _telling(type(None), reset), methods=["POST"]),
        Route("/forget_keys", _telling(type(None), forget_keys), methods=["POST"]),
        Route("/effects", effects),
        Route("/ledger", ledger),
        Route("/orders/{order_id}", order),
    )
    return [Mount("/_personality", routes=told)]


def _telling(shape: type[T], do: Callable[[T], None]) -> Handler:
    """A path that is told something: 204, or 400 with what is wrong with it."""

    async def handle(request: Request) -> Response:
        try:
            told = msgspec.json.decode(await request.body() or b"null", type=shape)
        except msgspec.MsgspecError as error:
            return Response(str(error), 400)
        do(told)
        return Response(status_code=204)

    return handle


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
