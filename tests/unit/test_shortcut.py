"""The shortcut to a route with a strict JSON body gives the same bytes as the way through FastAPI."""

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any, Final

import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis import problems
from chassis.application import Shortcut
from chassis.body import MAX_BYTES, StrictJSONRoute
from chassis.problems import Problem
from events.errors import DatabaseUnavailable, Unavailable
from services.order.requests import NewOrder
from tests.order_service import Json, a_new_order

RAISED: Final[dict[str, Exception]] = {
    "a problem": Problem(409, "still_running", "Ask again.", headers={"Retry-After": "1"}),
    "unavailable": Unavailable(),
    "one kind of unavailable": DatabaseUnavailable("secret", retry_after=2.5),
    "an answer of HTTP": HTTPException(418, "secret", headers={"Allow": "TEA"}),
    "an answer that HTTP does not know": HTTPException(999),
    "a fault": RequestValidationError([{"type": "missing", "loc": ("body", "a~/b"), "msg": "secret"}]),
    "a defect": RuntimeError("secret"),
    "a defect in what is said of a fault": RequestValidationError([{"type": "too_long", "loc": ("body",)}]),
    "a time-out": TimeoutError(),
}
"""The error that the endpoint raises for an order with this reference."""


async def place_order(new: NewOrder, request: Request) -> Response:
    if new.reference in RAISED:
        raise RAISED[new.reference]
    headers = {"Location": f"/orders/{request.headers.get('idempotency-key')}"}
    return Response(new.model_dump_json(), 201, headers, media_type="application/json")


def through_fastapi(router: APIRouter) -> FastAPI:
    app = FastAPI()
    problems.install(app)
    app.include_router(router)
    return app


async def blocked(scope: Scope, receive: Receive, send: Send) -> None:
    pytest.fail(f"{scope['method']} {scope['path']} took the long way")


STRICT: Final = APIRouter(route_class=StrictJSONRoute)
STRICT.post("/orders")(place_order)
SHORT: Final = Shortcut(blocked, STRICT.routes)
LONG: Final = through_fastapi(STRICT)
LENIENT: Final = APIRouter()
LENIENT.post("/orders")(place_order)
FASTAPIS_OWN: Final = through_fastapi(LENIENT)
"""FastAPI reads the body itself."""

Headers = Sequence[tuple[bytes, bytes]]
JSON: Final = (b"content-type", b"application/json")
GOOD: Final = json.dumps(a_new_order()).encode()
_NEW_IN_EVERY_ANSWER: Final = re.compile(r"urn:uuid:[0-9a-f-]{36}")


def part(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def answer(
    app: ASGIApp,
    *arriving: Message,
    headers: Headers = (JSON,),
    method: str = "POST",
    path: str = "/orders",
) -> tuple[int, str]:
    """The status and every message sent, without its random URN. Nothing comes after `arriving`."""
    messages = list(arriving)
    sent: list[Message] = []

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(dict(message))

    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "root_path": "",
        "path": path,
        "query_string": b"",
        "headers": list(headers),
    }
    await app(scope, receive, send)
    assert sent[0]["type"] == "http.response.start"
    return int(sent[0]["status"]), _NEW_IN_EVERY_ANSWER.sub("urn:uuid:…", repr(sent))


@pytest.mark.parametrize("reference", RAISED)
async def test_an_error_of_the_endpoint_is_answered_the_same(
    reference: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = part(json.dumps(a_new_order(reference=reference)).encode())
    short = await answer(SHORT, body)
    assert short == await answer(LONG, body)
    status, sent = short
    assert status >= 400
    assert "secret" not in sent
    logged = [_NEW_IN_EVERY_ANSWER.sub("", record.getMessage()) for record in caplog.records]
    assert logged == ["unhandled: POST /orders: "] * 2 * (status == 500)
    assert all(record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("expected", "arriving"),
    [
        (201, [part(GOOD)]),
        (201, [part(GOOD[:10], more=True), part(b"", more=True), part(GOOD[10:])]),
        (201, [part(GOOD, more=True), {"type": "http.request"}]),
        (201, [part(GOOD.ljust(MAX_BYTES))]),
        (413, [part(GOOD.ljust(MAX_BYTES), more=True), part(b" ", more=True)]),
        (408, [part(GOOD, more=True)]),
        (408, []),
        (400, [part(GOOD, more=True), {"type": "http.disconnect"}]),
        (400, [{"type": "http.disconnect"}]),
        (400, [part(b"")]),
        (400, [part(GOOD[:-1])]),
        (400, [part(GOOD[:-1] + b', "currency": "EUR"}')]),
        (400, [part(b"\xef\xbb\xbf" + GOOD)]),
        (400, [part(b"[" * 60_000)]),
        (422, [part(b"null")]),
        (422, [part(b"{}")]),
        (422, [part(json.dumps({f"f{number}": 1 for number in range(4_000)}).encode())]),
    ],
)
async def test_any_body_is_answered_the_same(
    monkeypatch: pytest.MonkeyPatch, expected: int, arriving: list[Message]
) -> None:
    monkeypatch.setattr("chassis.body.READ_SECONDS", 0.02)
    short = await answer(SHORT, *arriving)
    assert short == await answer(LONG, *arriving)
    assert short[0] == expected


@pytest.mark.parametrize(
    ("expected", "headers"),
    [
        (201, [JSON, (b"idempotency-key", b"k-1"), (b"idempotency-key", b"k-2")]),
        (201, [(b"content-type", b"Application/JSON ; charset=UTF-8"), (b"content-encoding", b"identity")]),
        (413, [JSON, (b"content-length", b"65537")]),
        (415, []),
        (415, [JSON, JSON]),
        (415, [(b"content-type", b"text/plain")]),
        (415, [JSON, (b"content-encoding", b"gzip")]),
    ],
)
async def test_any_headers_are_answered_the_same(expected: int, headers: Headers) -> None:
    short = await answer(SHORT, part(GOOD), headers=headers)
    assert short == await answer(LONG, part(GOOD), headers=headers)
    assert short[0] == expected


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "post"])
@pytest.mark.parametrize("path", ["/orders", "/orders/", "/Orders", "/openapi.json"])
async def test_every_other_request_takes_the_long_way(method: str, path: str) -> None:
    behind = Shortcut(LONG, STRICT.routes)
    assert await answer(behind, method=method, path=path) == await answer(LONG, method=method, path=path)


_SPOILT = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(
        [
            [],
            {},
            [{}],
            {"a": [1]},
            "\ud800",
            "a\u003ab",
            "x" * 201,
            "EUR",
            "US",
            "19.90",
            2,
            10**30,
            1.0,
            -0.0,
        ]
    )
)


@st.composite
def spoilt(draw: st.DrawFn) -> Json:
    """An order with a wrong value, a missing field or an unknown one, at any place."""
    order = a_new_order(items=[dict(item) for item in a_new_order()["items"] * draw(st.integers(1, 2))])
    objects: list[Json] = [order, order["customer"], order["shipping_address"], *order["items"]]
    for _ in range(draw(st.integers(0, 4))):
        where = draw(st.sampled_from(objects))
        name = draw(
            st.sampled_from(sorted(where)) | st.sampled_from(["a", "body", "e\u0301"]) | st.text(max_size=3)
        )
        if draw(st.booleans()):
            where.pop(name, None)
        else:
            where[name] = draw(_SPOILT)
    return order


@settings(max_examples=500)
@given(spoilt() | _SPOILT)
async def test_a_document_is_judged_as_fastapi_itself_does(document: Any) -> None:
    body = part(json.dumps(document).encode())
    assert await answer(SHORT, body) == await answer(FASTAPIS_OWN, body)


def test_an_endpoint_that_wants_more_than_the_document_and_the_request_is_refused() -> None:
    async def endpoint(new: NewOrder, request: Request, page: int = 1) -> Response:
        return await place_order(new, request)

    with pytest.raises(TypeError, match="endpoint must take the document and the request, and nothing else"):
        STRICT.post("/more")(endpoint)
