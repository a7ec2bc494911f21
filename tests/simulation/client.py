"""Clients: they place orders, repeat unanswered requests under the same key, and record the answers."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from uuid_utils.compat import uuid7

from events.errors import Unavailable
from services.order.intake import Accepted, IdempotencyKey, Intake, KeyReused, StillRunning
from services.order.requests import (
    NewAddress,
    NewCustomer,
    NewDiscount,
    NewItem,
    NewOrder,
    NewShipping,
)
from tests.simulation.process import Process
from tests.simulation.scheduler import Scheduler

MAX_TRIES = 12


@dataclass(frozen=True)
class PlannedOrder:
    """An order to place, and its idempotency key."""

    order: NewOrder
    key: str | None


@dataclass
class History:
    """The answers that the clients received."""

    accepted: list[tuple[PlannedOrder, UUID]] = field(default_factory=list)
    refused: list[PlannedOrder] = field(default_factory=list)
    """Refused because the key belongs to another order."""
    unanswered: list[PlannedOrder] = field(default_factory=list)
    newest: UUID = field(default_factory=lambda: UUID(int=0))
    """The newest order id."""


RICH: Final[Mapping[str, Any]] = {
    "prices": "gross",
    "tax_rounding": "rate",
    "items": [
        NewItem(
            id="mug",
            sku="MUG",
            name="Mug",
            quantity=3,
            unit_price="19.90",
            tax_rate="0.17",
            discount=NewDiscount(rate="0.1"),
        ),
        NewItem(
            id="tea", sku="TEA", name="Tea, in kg", quantity="0.125", unit_price="79.9999", tax_rate="0.07"
        ),
    ],
    "discount": NewDiscount(amount="1.00", name="Welcome"),
    "shipping": NewShipping(price="4.90", tax_rate="0.17"),
    "note": "Please ring twice.",
    "metadata": {"channel": "web"},
}
"""Fields of an order with gross prices, discounts, a fractional quantity and shipping."""
FREE: Final[Mapping[str, Any]] = {
    "items": [NewItem(sku="MUG", name="Mug", quantity=1, unit_price="19.90", discount=NewDiscount(rate="1"))],
    "payment_method": None,
}
"""Fields of an order whose total is 0."""


def an_order(
    reference: str,
    *,
    country: str = "BR",
    payment_method: str | None = "pm_card_visa",
    quantity: int = 1,
    **more: Any,
) -> NewOrder:
    """A valid order. `more` has its other fields; its `items` take the place of mugs in this quantity."""
    mugs = NewItem(sku="MUG", name="Mug", quantity=quantity, unit_price="19.90", tax_rate="0.17")
    return NewOrder(
        reference=reference,
        customer=NewCustomer(name=f"Customer {reference}", email=f"{reference.lower()}@example.com"),
        shipping_address=NewAddress(
            line1="Rua 1", city="São Paulo", postal_code="01304-001", country=country
        ),
        currency="BRL",
        payment_method=payment_method,
        **{"items": [mugs]} | more,
    )


def _id_after(previous: UUID) -> UUID:
    """An id of a later millisecond, so that ids sort in a fixed order, also those derived from them."""
    while (made := uuid7()).int >> 80 <= previous.int >> 80:
        continue
    return made


async def place(
    planned: PlannedOrder,
    history: History,
    scheduler: Scheduler,
    intake: Callable[[], tuple[Process, Intake] | None],
) -> None:
    """Repeats the request until there is an answer; without a key it asks once, to make only one order."""
    for _ in range(MAX_TRIES if planned.key else 1):
        async with scheduler.step(f"client asks for {planned.order.reference}"):
            found = intake()
        if found is None:
            await asyncio.sleep(1)
            continue
        process, door = found
        history.newest = _id_after(history.newest)
        placed = planned.order.placed(history.newest, datetime.now(UTC))
        key = IdempotencyKey(planned.key, planned.order.fingerprint()) if planned.key else None
        request = process.run(door.accept(placed, key), "request")
        await asyncio.wait({request})
        if request.cancelled():  # the process died
            continue
        match request.exception():
            case None:
                accepted: Accepted = request.result()
                history.accepted.append((planned, accepted.order.id))
                return
            case KeyReused():
                history.refused.append(planned)
                return
            case Unavailable() | StillRunning():
                continue
            case error:
                raise error
    history.unanswered.append(planned)
