"""Clients: they place orders, ask again under the same key while unanswered, and keep what they saw."""

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

MOST_TRIES = 12


@dataclass(frozen=True)
class Wish:
    """An order that somebody wants, and under which key."""

    order: NewOrder
    key: str | None


@dataclass
class History:
    """What the clients saw."""

    accepted: list[tuple[Wish, UUID]] = field(default_factory=list)
    refused: list[Wish] = field(default_factory=list)
    """The key belonged to another order."""
    unanswered: list[Wish] = field(default_factory=list)
    newest: UUID = field(default_factory=lambda: UUID(int=0))
    """The id of the order that was placed last."""


def an_order(
    reference: str, *, country: str = "BR", method: str = "pm_card_visa", quantity: int = 1
) -> NewOrder:
    """A legal order."""
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


def _id_after(before: UUID) -> UUID:
    """One of a later millisecond, so that the ids made from it are greater, too: their order is no chance."""
    while (made := uuid7()).int >> 80 <= before.int >> 80:
        continue
    return made


async def place(
    wish: Wish,
    history: History,
    scheduler: Scheduler,
    intake: Callable[[], tuple[Process, Intake] | None],
) -> None:
    """Asks until there is an answer; without a key only once, for that could make a second order."""
    for _ in range(MOST_TRIES if wish.key else 1):
        async with scheduler.step(f"client asks for {wish.order.reference}"):
            found = intake()
        if found is None:
            await asyncio.sleep(1)
            continue
        process, door = found
        history.newest = _id_after(history.newest)
        order = wish.order.to_order(history.newest, datetime.now(UTC))
        key = IdempotencyKey(wish.key, wish.order.fingerprint()) if wish.key else None
        asked = process.run(door.accept(order, key), "request")
        await asyncio.wait({asked})
        if asked.cancelled():  # the process died
            continue
        match asked.exception():
            case None:
                accepted: Accepted = asked.result()
                history.accepted.append((wish, accepted.order.id))
                return
            case KeyReused():
                history.refused.append(wish)
                return
            case Unavailable() | StillRunning():
                continue
            case error:
                raise error
    history.unanswered.append(wish)
