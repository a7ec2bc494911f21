"""A small server that answers as Stripe does, for the part of its API that billing uses.

PaymentIntents (create, confirm, retrieve, cancel, search) and refunds (create, retrieve, list), test tokens,
and idempotency as documented: the answer to a key is saved, errors of the server too, and replayed with
`Idempotent-Replayed: true`; the same key with other parameters is an `idempotency_error`. Faults are scripted
per order and step, and used up one request at a time.
"""

import asyncio
import json
import socket
import time
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

Step = Literal["create", "confirm", "retrieve", "cancel", "refund", "retrieve_refund"]
Fault = Literal[
    "timeout before",
    "timeout after",
    "500",
    "saved 500 before",
    "saved 500 after",
    "503",
    "429",
    "locked",
    "busy",
    "reset after",
    "nonsense",
    "no object",
    "another order",
    "unknown status",
    "processing",
]
FAULTS: tuple[Fault, ...] = Fault.__args__  # type: ignore[attr-defined]  # typing does not know

DECLINES = {
    "pm_card_chargeDeclined": ("card_declined", "generic_decline"),
    "pm_card_chargeDeclinedInsufficientFunds": ("card_declined", "insufficient_funds"),
    "pm_card_chargeDeclinedLostCard": ("card_declined", "lost_card"),
    "pm_card_chargeDeclinedStolenCard": ("card_declined", "stolen_card"),
    "pm_card_chargeDeclinedExpiredCard": ("expired_card", "expired_card"),
    "pm_card_chargeDeclinedIncorrectCvc": ("incorrect_cvc", "incorrect_cvc"),
    "pm_card_chargeDeclinedProcessingError": ("processing_error", "processing_error"),
    "pm_card_authenticationRequired": ("authentication_required", "authentication_required"),
}
PAYS = ("pm_card_visa", "pm_card_mastercard", "pm_card_amex")
PRESENTABLE = ("brl", "eur", "usd", "jpy", "kwd", "isk", "mga")


class StripeError(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, **error: object) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


@dataclass
class StripeServer:
    """What the server knows; its own truth about the money."""

    url: str = ""
    intents: dict[str, dict[str, Any]] = field(default_factory=dict)
    refunds: dict[str, dict[str, Any]] = field(default_factory=dict)
    saved: dict[str, tuple[str, int, dict[str, Any]]] = field(default_factory=dict)
    """By idempotency key: parameters, status and body of the first answer."""
    faults: dict[tuple[str, Step], deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    outage: bool = False
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Step and idempotency key of every request."""
    headers: dict[str, str] = field(default_factory=dict)
    """Those of the last request."""
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at the end: requests that hang give up."""

    def fail(self, order_id: object, step: Step, *faults: Fault) -> None:
        """The next requests of this step for this order go wrong, each in its way."""
        self.faults[str(order_id), step].extend(faults)

    def of_order(self, order_id: object) -> list[dict[str, Any]]:
        """The order's intents."""
        return [i for i in self.intents.values() if i["metadata"].get("order_id") == str(order_id)]

    def captured(self, order_id: object) -> list[int]:
        """Every amount captured for the order."""
        return [i["amount_received"] for i in self.of_order(order_id) if i["status"] == "succeeded"]

    def given_back(self, order_id: object) -> list[int]:
        """Every amount given back for the order."""
        return [r["amount"] for r in self.refunds.values() if r["metadata"].get("order_id") == str(order_id)]

    def forget_keys(self) -> None:
        """A day has passed."""
        self.saved.clear()


def create(server: StripeServer, form: dict[str, Any]) -> dict[str, Any]:
    """An intent that waits for confirmation; it has charged nothing."""
    if int(form["amount"]) > 99_999_999:
        raise StripeError(400, type="invalid_request_error", code="amount_too_large", param="amount")
    if form["currency"] not in PRESENTABLE:
        raise StripeError(400, type="invalid_request_error", param="currency")
    if form["payment_method"] not in (*DECLINES, *PAYS):
        raise StripeError(
            400,
            type="invalid_request_error",
            code="resource_missing",
            param="payment_method",
            message=f"No such PaymentMethod: '{form['payment_method']}'",
        )
    intent = {
        "id": f"pi_{uuid.uuid4().hex[:24]}",
        "object": "payment_intent",
        "amount": int(form["amount"]),
        "amount_received": 0,
        "currency": form["currency"],
        "payment_method": form["payment_method"],
        "status": "requires_confirmation",
        "created": int(time.time()),
        "metadata": nested(form, "metadata"),
        "last_payment_error": None,
        "latest_charge": None,
    }
    server.intents[str(intent["id"])] = intent
    return intent


def confirm(intent: dict[str, Any]) -> dict[str, Any]:
    """Pays the intent, once, or declines."""
    if intent["status"] != "requires_confirmation":
        raise StripeError(400, type="invalid_request_error", code="payment_intent_unexpected_state")
    charge = {"id": f"ch_{uuid.uuid4().hex[:24]}", "object": "charge", "created": int(time.time())}
    intent["latest_charge"] = charge
    method = intent["payment_method"]
    if method in DECLINES:
        code, decline_code = DECLINES[method]
        error = {"type": "card_error", "code": code, "decline_code": decline_code, "message": "Declined."}
        intent.update(status="requires_payment_method", payment_method=None, last_payment_error=error)
        raise StripeError(402, **error, payment_intent=dict(intent))
    intent.update(status="succeeded", amount_received=intent["amount"])
    return intent


def cancel(intent: dict[str, Any]) -> dict[str, Any]:
    """Makes the intent unpayable."""
    if intent["status"] in ("succeeded", "canceled", "processing"):
        raise StripeError(400, type="invalid_request_error", code="payment_intent_unexpected_state")
    intent["status"] = "canceled"
    return intent


def refund(server: StripeServer, form: dict[str, Any]) -> dict[str, Any]:
    """Gives back, never more than was captured."""
    intent = server.intents[form["payment_intent"]]
    given = sum(r["amount"] for r in server.refunds.values() if r["payment_intent"] == intent["id"])
    if given + int(form["amount"]) > intent["amount_received"]:
        raise StripeError(400, type="invalid_request_error", code="charge_already_refunded")
    made = {
        "id": f"re_{uuid.uuid4().hex[:24]}",
        "object": "refund",
        "amount": int(form["amount"]),
        "currency": intent["currency"],
        "payment_intent": intent["id"],
        "created": int(time.time()),
        "status": "succeeded",
        "metadata": nested(form, "metadata"),
    }
    server.refunds[str(made["id"])] = made
    return made


def nested(form: dict[str, Any], name: str) -> dict[str, str]:
    """`metadata[a]=1` as a dictionary."""
    return {key[len(name) + 1 : -1]: value for key, value in form.items() if key.startswith(f"{name}[")}


def do(server: StripeServer, step: Step, target: str | None, form: dict[str, Any]) -> dict[str, Any]:
    """Takes one step and tells what the object is then."""
    match step:
        case "create":
            return create(server, form)
        case "refund":
            return refund(server, form)
        case "retrieve_refund":
            return server.refunds[str(target)]
        case "retrieve":
            return server.intents[str(target)]
        case "confirm":
            return confirm(server.intents[str(target)])
        case "cancel":
            return cancel(server.intents[str(target)])


def order_of(server: StripeServer, step: Step, target: str | None, form: dict[str, Any]) -> str:
    """The order that a request is about."""
    if step in ("create", "refund"):
        return nested(form, "metadata")["order_id"]
    stored = server.refunds if step == "retrieve_refund" else server.intents
    return str(stored[str(target)]["metadata"]["order_id"])


async def answer(server: StripeServer, request: Request, step: Step, target: str | None = None) -> Response:
    """One request: its fault if it has one, the saved answer if its key has one, else the step itself."""
    body = (await request.body()).decode()
    key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
    server.requests.append((step, key))
    server.headers = dict(request.headers)
    form: dict[str, Any] = dict(parse_qsl(body))
    faults = server.faults[order_of(server, step, target, form), step]
    fault = faults.popleft() if faults else None
    if server.outage or fault == "503":
        return JSONResponse({"error": {"type": "api_error"}}, 503)
    if fault == "429":
        return JSONResponse({"error": {"type": "invalid_request_error"}}, 429, {"Retry-After": "1"})
    if fault in ("locked", "busy"):
        code = "lock_timeout" if fault == "locked" else "idempotency_key_in_use"
        error = {"type": "invalid_request_error", "code": code}
        return JSONResponse({"error": error}, 429 if fault == "locked" else 409)
    if fault == "500":
        return JSONResponse({"error": {"type": "api_error"}}, 500)
    if fault == "timeout before":
        await server.hanging.wait()
        return Response(status_code=500)
    if key and key in server.saved:
        parameters, status, saved = server.saved[key]
        if parameters != body:
            return JSONResponse({"error": {"type": "idempotency_error"}}, 400)
        return await sent(server, fault, status, saved, replayed=True)
    status, result = 500, {"error": {"type": "api_error", "message": "Saved."}}
    if fault != "saved 500 before":
        status, result = taken(server, step, target, form)
    if fault == "saved 500 after":
        status, result = 500, {"error": {"type": "api_error", "message": "Saved."}}
    validated = not (status == 400 and step in ("create", "refund"))  # what fails validation is not saved
    if key and validated:
        server.saved[key] = body, status, result
    return await sent(server, fault, status, result)


def taken(
    server: StripeServer, step: Step, target: str | None, form: dict[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Status and body after taking the step; a copy, as the object is now."""
    try:
        return 200, json.loads(json.dumps(do(server, step, target, form)))
    except StripeError as error:
        return error.status, {"error": error.error}


async def sent(
    server: StripeServer, fault: Fault | None, status: int, body: dict[str, Any], *, replayed: bool = False
) -> Response:
    """The answer, as far as its fault lets it through."""
    match fault:
        case "timeout after":
            await server.hanging.wait()
        case "reset after":
            return StreamingResponse(broken(), headers={"Content-Length": "1000"})
        case "nonsense":
            return Response("<html>It works!</html>", 200)
        case "no object":
            return Response("[]", 200)
        case "another order":
            status, body = 200, of_another(body)
        case "unknown status" | "processing":
            body = body | {"status": "processing" if fault == "processing" else "levitating"}
    headers = {"Idempotent-Replayed": "true"} if replayed else {}
    return JSONResponse(body, status, headers)


def of_another(body: dict[str, Any]) -> dict[str, Any]:
    """The same object of another order, paid or given back already."""
    metadata = {name: str(uuid.uuid4()) for name in ("order_id", "payment_id", "refund_id")}
    body = body.get("error", {}).get("payment_intent", body)
    status = "canceled" if body["status"] == "canceled" else "succeeded"
    paid = {"amount_received": body["amount"]} if body["object"] == "payment_intent" else {}
    return body | paid | {"id": f"{body['id']}_other", "status": status, "metadata": metadata}


async def broken() -> AsyncIterator[bytes]:
    """The beginning of an answer, and then the connection is closed."""
    yield b'{"id": "pi_'
    await asyncio.sleep(0)
    raise ConnectionResetError


def application(server: StripeServer) -> FastAPI:
    """The HTTP side."""
    app = FastAPI()

    @app.post("/v1/payment_intents")
    async def post_intent(request: Request) -> Response:
        return await answer(server, request, "create")

    @app.get("/v1/payment_intents/search")
    async def search(query: str) -> Response:
        payment_id = query.removeprefix("metadata['payment_id']:'").removesuffix("'")
        found = [i for i in server.intents.values() if i["metadata"].get("payment_id") == payment_id]
        stale = [intent | {"status": "requires_confirmation"} for intent in found]
        return JSONResponse({"object": "search_result", "data": stale, "has_more": False})

    @app.get("/v1/payment_intents/{intent}")
    async def get_intent(intent: str, request: Request) -> Response:
        return await answer(server, request, "retrieve", intent)

    @app.post("/v1/payment_intents/{intent}/confirm")
    async def post_confirm(intent: str, request: Request) -> Response:
        return await answer(server, request, "confirm", intent)

    @app.post("/v1/payment_intents/{intent}/cancel")
    async def post_cancel(intent: str, request: Request) -> Response:
        return await answer(server, request, "cancel", intent)

    @app.post("/v1/refunds")
    async def post_refund(request: Request) -> Response:
        return await answer(server, request, "refund")

    @app.get("/v1/refunds/{refund}")
    async def get_refund(refund: str, request: Request) -> Response:
        return await answer(server, request, "retrieve_refund", refund)

    @app.get("/v1/refunds")
    async def list_refunds(payment_intent: str) -> Response:
        found = [r for r in server.refunds.values() if r["payment_intent"] == payment_intent]
        return JSONResponse({"object": "list", "data": found, "has_more": False})

    return app


@asynccontextmanager
async def serving() -> AsyncIterator[StripeServer]:
    """The server on a free port of this machine."""
    state = StripeServer()
    listener = socket.create_server(("127.0.0.1", 0))
    state.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(application(state), log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield state
    finally:
        state.hanging.set()
        server.should_exit = True
        await task
        listener.close()
