"""The order's API: `POST /orders` and `GET /orders/{id}`."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from uuid_utils.compat import uuid7

from chassis.body import StrictJSONRoute
from chassis.problems import Fault, Problem, invalid, pointer
from events.transactions import Transactions
from services.order import documents, repository
from services.order.intake import IdempotencyKey, Intake, KeyReused, StillRunning
from services.order.refusal import OrderRefused
from services.order.requests import NewOrder

_IDEMPOTENCY_KEY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Names this order: asking again with the same key and order gives the same answer.",
    "schema": {"type": "string", "pattern": "^[ -~]{1,255}$"},
}
_ACCEPTED: Final[dict[str, Any]] = {
    "description": "The order was accepted, and will be carried out.",
    "headers": {
        "Location": {"description": "Where the order is.", "schema": {"type": "string"}},
        "Idempotency-Replayed": {
            "description": "`true` when the key had made this order before.",
            "schema": {"type": "string", "enum": ["true"]},
        },
    },
}


def routes(intake: Intake, transactions: Transactions) -> APIRouter:
    """`POST /orders` accepts orders through the intake; `GET /orders/{id}` reads them from the database."""
    router = APIRouter(tags=["orders"], route_class=StrictJSONRoute)

    @router.post(
        "/orders",
        status_code=201,
        response_model=documents.Order,
        responses={201: _ACCEPTED},
        openapi_extra={"parameters": [_IDEMPOTENCY_KEY]},
    )
    async def place_order(new: NewOrder, request: Request) -> Response:
        """Accepts an order. It is never lost from then on, and makes its way by itself."""
        key = _idempotency_key(request, new)
        try:
            placed = new.placed(uuid7(), datetime.now(UTC))
            accepted = await intake.accept(placed, key)
        except OrderRefused as refused:
            earlier = await intake.find_earlier(key) if key else None
            if earlier is None:
                raise _invalid(refused) from None
            accepted = earlier
        except KeyReused:
            detail = "This Idempotency-Key was used for a different order: use a new key."
            raise Problem(422, "idempotency_key_reused", detail) from None
        except StillRunning:
            detail = "Another request with this Idempotency-Key is still running: try again."
            raise Problem(409, "still_running", detail, headers={"Retry-After": "1"}) from None
        headers = {"Location": f"/orders/{accepted.order.id}"}
        if accepted.replayed:
            headers["Idempotency-Replayed"] = "true"
        return _json(documents.Order.of(accepted.order, [accepted.first_entry]), 201, headers)

    @router.get("/orders/{order_id}", response_model=documents.Order)
    async def read_order(
        order_id: Annotated[str, Path(json_schema_extra={"format": "uuid"})],
    ) -> Response:
        """An order, and where it stands."""
        wanted = _uuid(order_id)
        if wanted:
            found = await repository.find(transactions, [wanted])
            if found:
                return _json(documents.Order.of(*found[wanted]))
        raise Problem(404, "order_not_found", "There is no order with this id.")

    return router


def _invalid(refused: OrderRefused) -> Problem:
    return invalid(
        [
            Fault(pointer=pointer(broken.path), code=broken.code, detail=broken.message)
            for broken in refused.broken
        ]
    )


def _idempotency_key(request: Request, new: NewOrder) -> IdempotencyKey | None:
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return None
    [key, *others] = keys
    if others or not 1 <= len(key) <= 255 or not (key.isascii() and key.isprintable()):
        detail = "Idempotency-Key must be one header of 1 to 255 printable ASCII characters."
        raise Problem(400, "invalid_idempotency_key", detail)
    return IdempotencyKey(key, new.fingerprint())


def _uuid(text: str) -> UUID | None:
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text.lower() else None


def _json(document: documents.Order, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(document.json(), status, headers, media_type="application/json")
