"""Clients: they place orders, repeat unanswered requests under the same key, and record the answers."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from events.errors import Unavailable
from services.order.intake import Accepted, IdempotencyKey, Intake, KeyReused, StillRunning
from services.order.requests import NewAddress, NewCustomer, NewItem, NewOrder
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


def an_order(
    reference: str, *, country: str = "BR", method: str = "pm_card_visa", quantity: int = 1
) -> NewOrder:
    """A valid order."""
    return NewOrder(
        reference=reference,
        customer=NewCustomer(name=f"Customer {reference}", email=f"{reference.lower()}@example.com"),
        shipping_address=NewAddress(
            line1="Rua 1", city="São Paulo", postal_code="01304-001", country=country
        ),
        currency="BRL",
        items=[NewItem(sku="MUG", name="Mug", quantity=quantity, unit_price="19.90", tax_rate="0.17")],
        payment_method=method,
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
