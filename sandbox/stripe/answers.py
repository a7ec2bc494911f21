"""How answers go wrong: what each behaviour does to the connection and to what is sent on it."""

import asyncio
import uuid
from typing import Any, Final

import msgspec

from sandbox.stripe import errors
from sandbox.stripe.account import Answer, Request
from sandbox.stripe.connection import Connection
from sandbox.stripe.errors import StripeRefusal
from sandbox.stripe.objects import new_id
from sandbox.stripe.personality import Behaviour, Pace

NONSENSE: Final = b"<html><body>It works!</body></html>"


def headers(answer: Answer) -> dict[bytes, bytes]:
    """The request's id, and whether the answer was saved by an earlier request."""
    replayed = {b"idempotent-replayed": b"true"} if answer.replayed else {}
    return {b"request-id": new_id("req").encode(), **replayed}


async def pause(pace: Pace) -> None:
    """Takes its time."""
    await asyncio.sleep(pace.slow_seconds)


async def denied(connection: Connection, request: Request, behaviour: Behaviour, pace: Pace) -> None:
    """Answers, or does not answer, a request that was not looked at."""
    match behaviour:
        case Behaviour.TIMEOUT_BEFORE:
            await connection.hang(pace.hang_seconds)
        case Behaviour.REFUSED:
            await connection.reset()
        case _:
            refusal = _denial(request, behaviour)
            more = {b"request-id": new_id("req").encode()}
            if behaviour is Behaviour.RATE_LIMITED:
                more[b"retry-after"] = str(pace.retry_after).encode()
            await connection.answer(refusal.status, msgspec.json.encode({"error": refusal.error}), more)


def _denial(request: Request, behaviour: Behaviour) -> StripeRefusal:
    match behaviour:
        case Behaviour.UNAVAILABLE:
            return errors.unavailable()
        case Behaviour.RATE_LIMITED:
            return errors.rate_limited()
        case Behaviour.LOCK_TIMEOUT:
            return errors.locked()
        case Behaviour.KEY_IN_USE:
            return errors.key_in_use(request.key or "")
        case Behaviour.KEY_CONFLICT:
            return errors.key_reused(request.key or "")
        case _:
            return errors.own_error()


async def spoilt(connection: Connection, answer: Answer, behaviour: Behaviour, pace: Pace) -> bool:
    """Answers what was done in a way that does not help; tells whether that was possible.

    Where it was not, the answer is sent as it is.
    """
    status, body = answer.status, answer.body
    match behaviour:
        case Behaviour.TIMEOUT_AFTER:
            await connection.hang(pace.hang_seconds)
            return True
        case Behaviour.RESET:
            await connection.cut(status, body, headers(answer))
            return True
        case Behaviour.SLOW_DRIP:
            await connection.drip(status, body, headers(answer), pace.drip_seconds)
            return True
        case Behaviour.NONSENSE:
            await connection.answer(200, NONSENSE, headers(answer), b"text/html")
            return True
        case Behaviour.NO_OBJECT | Behaviour.EMPTY_OBJECT:
            await connection.answer(
                200, b"[]" if behaviour is Behaviour.NO_OBJECT else b"{}", headers(answer)
            )
            return True
    decoded: dict[str, Any] = msgspec.json.decode(body)
    shown = decoded.get("error", {}).get("payment_intent", decoded)
    told: dict[str, Any] | None = None
    if "status" in shown and behaviour is Behaviour.ANOTHER_ORDER:
        status, told = 200, _of_another(shown)
    elif "status" in decoded and behaviour in (Behaviour.UNKNOWN_STATUS, Behaviour.PROCESSING):
        told = decoded | {"status": "processing" if behaviour is Behaviour.PROCESSING else "levitating"}
    await connection.answer(status, msgspec.json.encode(told) if told else body, headers(answer))
    return told is not None


def _of_another(shown: dict[str, Any]) -> dict[str, Any]:
    """The same object of another order, paid, given back or cancelled already."""
    metadata = {name: str(uuid.uuid4()) for name in ("order_id", "payment_id", "refund_id")}
    status = "canceled" if shown["status"] == "canceled" else "succeeded"
    paid = {"amount_received": shown["amount"]} if shown["object"] == "payment_intent" else {}
    return shown | paid | {"id": f"{shown['id']}_other", "status": status, "metadata": metadata}
