"""Answers gone wrong: what each behaviour does to the connection and to the bytes sent on it."""

import asyncio
import uuid
from typing import Any, Final

import msgspec

from sandbox.stripe import errors
from sandbox.stripe.account import Answer, Request
from sandbox.stripe.connection import Connection
from sandbox.stripe.errors import StripeRefusal
from sandbox.stripe.faults import Behaviour, Timing
from sandbox.stripe.objects import new_id

NONSENSE: Final = b"<html><body>It works!</body></html>"


def headers(answer: Answer) -> dict[bytes, bytes]:
    """Returns the request's id, and whether an earlier request saved the answer."""
    replayed = {b"idempotent-replayed": b"true"} if answer.replayed else {}
    return {b"request-id": new_id("req").encode(), **replayed}


async def pause(timing: Timing) -> None:
    """Waits before the work begins."""
    await asyncio.sleep(timing.slow_seconds)


async def deny(connection: Connection, request: Request, behaviour: Behaviour, timing: Timing) -> None:
    """Refuses a request that nothing was done for: with an error, a reset or no answer."""
    match behaviour:
        case Behaviour.TIMEOUT_BEFORE:
            await connection.hang(timing.hang_seconds)
        case Behaviour.REFUSED:
            await connection.reset()
        case _:
            refusal = _denial(request, behaviour)
            more = {b"request-id": new_id("req").encode()}
            if behaviour is Behaviour.RATE_LIMITED:
                more[b"retry-after"] = str(timing.retry_after).encode()
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
            return errors.api_error()


async def spoil(connection: Connection, answer: Answer, behaviour: Behaviour, timing: Timing) -> bool:
    """Sends the answer as the behaviour distorts it, else unchanged. Returns whether it was distorted."""
    status, body = answer.status, answer.body
    match behaviour:
        case Behaviour.TIMEOUT_AFTER:
            await connection.hang(timing.hang_seconds)
            return True
        case Behaviour.RESET:
            await connection.cut(status, body, headers(answer))
            return True
        case Behaviour.SLOW_DRIP:
            await connection.drip(status, body, headers(answer), timing.drip_seconds)
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
    distorted: dict[str, Any] | None = None
    if "status" in shown and behaviour is Behaviour.ANOTHER_ORDER:
        status, distorted = 200, _of_another(shown)
    elif "status" in decoded and behaviour in (Behaviour.UNKNOWN_STATUS, Behaviour.PROCESSING):
        distorted = decoded | {"status": "processing" if behaviour is Behaviour.PROCESSING else "levitating"}
    await connection.answer(status, msgspec.json.encode(distorted) if distorted else body, headers(answer))
    return distorted is not None


def _of_another(shown: dict[str, Any]) -> dict[str, Any]:
    """Returns the object as another order's that is already paid, refunded or canceled."""
    metadata = {name: str(uuid.uuid4()) for name in ("order_id", "payment_id", "refund_id")}
    status = "canceled" if shown["status"] == "canceled" else "succeeded"
    paid = {"amount_received": shown["amount"]} if shown["object"] == "payment_intent" else {}
    return shown | paid | {"id": f"{shown['id']}_other", "status": status, "metadata": metadata}
