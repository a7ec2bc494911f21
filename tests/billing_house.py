"""Billing for tests: on real databases and a memory bus, with a listener to its events."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

import asyncpg
from sqlalchemy.engine import make_url

from chassis import database
from events import envelope
from events.bus import Message
from events.commit import Transactions
from events.contracts import (
    AnyEvent,
    InvoiceCreated,
    Invoiced,
    Order,
    PaymentConfirmed,
    PaymentFailed,
    PaymentRefunded,
    Reason,
    ShipmentError,
    Undeliverable,
    type_of,
)
from events.memory import MemoryBus
from events.participant import Participant
from services.billing import charging, refunding
from services.billing.domain import Payment, Refund
from services.billing.handlers import HANDLERS
from services.billing.provider import Provider
from tests.factories import an_invoice
from tests.waiting import patient_bus

E = TypeVar("E", bound=AnyEvent)

ANNOUNCED = {type_of(event) for event in (PaymentConfirmed, PaymentFailed, PaymentRefunded)}
PATIENCE = 30.0
"""Seconds after which a test gives up waiting."""


def invoiced(order: Order) -> InvoiceCreated:
    """The order's invoice was issued."""
    return InvoiceCreated.of(Invoiced(order=order, invoice=an_invoice()))


def undeliverable(paid: PaymentConfirmed) -> ShipmentError:
    """The carrier refused the parcel of a paid order."""
    reason = Reason(code="destination_not_served", message="We do not ship there.", stage="shipment")
    data = paid.data
    return ShipmentError.of(
        Undeliverable(order=data.order, invoice=data.invoice, payment=data.payment, reason=reason)
    )


@dataclass
class Listener:
    """Collects the events that billing announces."""

    heard: dict[UUID, list[AnyEvent]] = field(default_factory=lambda: defaultdict(list))
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def listen(self, bus: MemoryBus) -> None:
        """Listens until it is cancelled."""
        async with bus.subscribe("listener", ANNOUNCED) as subscription:
            while True:
                deliveries = await subscription.take(100)
                async with self.changed:
                    for delivery in deliveries:
                        events, rejected = envelope.decode(delivery.body)
                        assert not rejected
                        for event in events:
                            self.heard[event.subject].append(event)
                    self.changed.notify_all()
                await subscription.acknowledge(deliveries)

    async def hears(self, event_type: type[E], order: Order) -> E:
        """The first event of this type about the order, once it has arrived."""

        def found() -> list[E]:
            return [event for event in self.heard[order.id] if isinstance(event, event_type)]

        async with asyncio.timeout(PATIENCE), self.changed:
            await self.changed.wait_for(found)
        return found()[0]


@dataclass
class House:
    """Billing's surroundings: the bus between it and its listener, and every table as the owner sees it."""

    owner_url: str
    billing_url: str
    ledger_url: str
    bus: MemoryBus
    listener: Listener
    sent: "list[asyncio.Task[None]]" = field(default_factory=list)

    async def publish(self, *events: AnyEvent) -> None:
        """Publishes the events. Returns when billing has committed them."""
        for message in envelope.messages(events):
            await self.deliver(message)

    async def deliver(self, message: Message) -> None:
        """Publishes one message unchanged."""
        async with asyncio.timeout(PATIENCE):
            await self.bus.publish(message)

    def send(self, *events: AnyEvent) -> None:
        """Publishes the events without waiting for billing."""
        for message in envelope.messages(events):
            self.sent.append(asyncio.create_task(self.bus.publish(message)))

    @asynccontextmanager
    async def connected(self) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
        """A connection of the databases' owner."""
        url = make_url(self.owner_url).set(drivername="postgresql")
        connection = await asyncpg.connect(url.render_as_string(hide_password=False))
        try:
            yield connection
        finally:
            await connection.close()

    async def rows(self, query: str, *arguments: object) -> Sequence[asyncpg.Record]:
        """Rows of any schema, read as the owner."""
        async with self.connected() as connection:
            return await connection.fetch(query, *arguments)

    async def charges(self, order: Order) -> list[int]:
        """Every amount that the simulated provider's ledger has captured for the order."""
        query = "SELECT amount FROM provider.charges WHERE order_id = $1 AND status = 'succeeded'"
        return [record["amount"] for record in await self.rows(query, order.id)]

    async def expire_claims(self) -> None:
        """Makes the claims of a process that died run out."""
        for table in ("payments", "refunds", "outbox"):
            await self.rows(f"""
                UPDATE billing.{table} SET claimed_until = now() WHERE id IN (
                    SELECT id FROM billing.{table} WHERE state = 'pending' FOR UPDATE SKIP LOCKED)""")

    async def age_keys(self, hours: float) -> None:
        """Makes every key this much older, and every claim run out."""
        for table in ("payments", "refunds"):
            await self.rows(
                f"UPDATE billing.{table} SET first_tried_at = now() - make_interval(secs => $1 * 3600.0)",
                hours,
            )
        await self.expire_claims()

    async def until(self, query: str, *arguments: object) -> None:
        """Returns when the query finds a row."""
        async with asyncio.timeout(PATIENCE):
            while not await self.rows(query, *arguments):
                await asyncio.sleep(0.05)

    @asynccontextmanager
    async def billing(self, provider: Provider) -> AsyncIterator[Participant]:
        """One billing process. It drains when the block ends."""
        async with database.connect(self.billing_url, pool=6, application="test") as pool:
            transactions = Transactions(pool)
            participant = Participant(
                "billing",
                HANDLERS,
                transactions,
                self.bus,
                {
                    Payment: charging.runner(provider, transactions, concurrency=32, sweep_seconds=0.2),
                    Refund: refunding.runner(provider, transactions, concurrency=32, sweep_seconds=0.2),
                },
                sweep_seconds=0.2,
            )
            running = asyncio.create_task(participant.run())
            try:
                yield participant
            finally:
                participant.stop()
                await running


def make_bus() -> MemoryBus:
    """A bus for billing and its listener."""
    return patient_bus({"billing": {type_of(event) for event in HANDLERS}, "listener": ANNOUNCED})


@asynccontextmanager
async def opened(owner_url: str, service_url: Callable[[str], Awaitable[str]]) -> AsyncIterator[House]:
    """The surroundings of billing, with the listener and no billing process."""
    bus, listener = make_bus(), Listener()
    listening = asyncio.create_task(listener.listen(bus))
    try:
        yield House(owner_url, await service_url("billing"), await service_url("provider"), bus, listener)
    finally:
        listening.cancel()
