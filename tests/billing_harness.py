"""Runs billing in tests: on real databases and a bus in memory, with a listener for its events."""

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
from events.transactions import Transactions
from services.billing import work
from services.billing.domain import Payment, Refund
from services.billing.handlers import HANDLERS
from services.billing.provider import Provider
from tests.factories import an_invoice
from tests.waiting import patient_bus

E = TypeVar("E", bound=AnyEvent)

ANNOUNCED = {type_of(event) for event in (PaymentConfirmed, PaymentFailed, PaymentRefunded)}
PATIENCE = 30.0
"""Seconds after which a test gives up waiting."""


def invoiced(order: Order, payment_method: str | None = "pm_card_visa") -> InvoiceCreated:
    """The event: the order's invoice was issued."""
    return InvoiceCreated.of(Invoiced(order=order, invoice=an_invoice(), payment_method=payment_method))


def undeliverable(paid: PaymentConfirmed) -> ShipmentError:
    """The event: the carrier refused the parcel of a paid order."""
    reason = Reason(code="destination_not_served", message="We do not ship there.", stage="shipment")
    data = paid.data
    return ShipmentError.of(
        Undeliverable(order=data.order, invoice=data.invoice, payment=data.payment, reason=reason)
    )


@dataclass
class Listener:
    """Collects the events that billing publishes."""

    received: dict[UUID, list[AnyEvent]] = field(default_factory=lambda: defaultdict(list))
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def listen(self, bus: MemoryBus) -> None:
        """Collects until cancelled."""
        async with bus.subscribe("listener", ANNOUNCED) as subscription:
            while True:
                deliveries = await subscription.take(100)
                async with self.changed:
                    for delivery in deliveries:
                        events, rejected = envelope.decode(delivery.body)
                        assert not rejected
                        for event in events:
                            self.received[event.subject].append(event)
                    self.changed.notify_all()
                await subscription.acknowledge(deliveries)

    async def wait_for(self, event_type: type[E], order: Order) -> E:
        """Returns the first event of this type about the order, once it has arrived."""

        def found() -> list[E]:
            return [event for event in self.received[order.id] if isinstance(event, event_type)]

        async with asyncio.timeout(PATIENCE), self.changed:
            await self.changed.wait_for(found)
        return found()[0]


@dataclass
class Harness:
    """A bus between billing and its listener, and the database owner's access to every table."""

    owner_url: str
    billing_url: str
    ledger_url: str
    bus: MemoryBus
    listener: Listener
    sent: "list[asyncio.Task[None]]" = field(default_factory=list)

    async def publish(self, *events: AnyEvent) -> None:
        """Publishes the events; returns when billing has committed them."""
        for message in envelope.messages(events):
            await self.deliver(message)

    async def deliver(self, message: Message) -> None:
        """Publishes one message; returns when billing has committed it."""
        async with asyncio.timeout(PATIENCE):
            await self.bus.publish(message)

    def send(self, *events: AnyEvent) -> None:
        """Publishes the events without waiting for billing."""
        for message in envelope.messages(events):
            self.sent.append(asyncio.create_task(self.bus.publish(message)))

    @asynccontextmanager
    async def connected(self) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
        """Opens a connection as the database's owner."""
        url = make_url(self.owner_url).set(drivername="postgresql")
        connection = await asyncpg.connect(url.render_as_string(hide_password=False))
        try:
            yield connection
        finally:
            await connection.close()

    async def rows(self, query: str, *arguments: object) -> Sequence[asyncpg.Record]:
        """Runs a query as the database's owner."""
        async with self.connected() as connection:
            return await connection.fetch(query, *arguments)

    async def charges(self, order: Order) -> list[int]:
        """Returns the amounts that the simulated provider's ledger has captured for the order."""
        query = "SELECT amount FROM provider.charges WHERE order_id = $1 AND status = 'succeeded'"
        return [record["amount"] for record in await self.rows(query, order.id)]

    async def expire_claims(self) -> None:
        """Ends all claims, as if they had run out after their process died."""
        for table in ("payments", "refunds", "outbox"):
            await self.rows(f"""
                UPDATE billing.{table} SET claimed_until = now() WHERE id IN (
                    SELECT id FROM billing.{table} WHERE state = 'pending' FOR UPDATE SKIP LOCKED)""")

    async def age_keys(self, hours: float) -> None:
        """Ends all claims, and makes every key as old as if it had been used first so many hours ago."""
        for table in ("payments", "refunds"):
            await self.rows(
                f"UPDATE billing.{table} SET first_tried_at = now() - make_interval(secs => $1 * 3600.0)",
                hours,
            )
        await self.expire_claims()

    async def wait_until(self, query: str, *arguments: object) -> None:
        """Waits until the query finds a row."""
        async with asyncio.timeout(PATIENCE):
            while not await self.rows(query, *arguments):
                await asyncio.sleep(0.05)

    @asynccontextmanager
    async def billing(self, provider: Provider) -> AsyncIterator[Participant]:
        """Runs one billing process until the end of the block; then it drains."""
        async with database.connect(self.billing_url, pool=6, application="test") as pool:
            transactions = Transactions(pool)
            participant = Participant(
                "billing",
                HANDLERS,
                transactions,
                self.bus,
                {
                    Payment: work.runner_of_payments(
                        provider, transactions, concurrency=32, sweep_seconds=0.2
                    ),
                    Refund: work.runner_of_refunds(provider, transactions, concurrency=32, sweep_seconds=0.2),
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
    """Makes a bus for billing and its listener."""
    return patient_bus({"billing": {type_of(event) for event in HANDLERS}, "listener": ANNOUNCED})


@asynccontextmanager
async def open_harness(
    owner_url: str, service_url: Callable[[str], Awaitable[str]]
) -> AsyncIterator[Harness]:
    """Opens a harness with the listener running, and no billing process yet."""
    bus, listener = make_bus(), Listener()
    listening = asyncio.create_task(listener.listen(bus))
    try:
        yield Harness(owner_url, await service_url("billing"), await service_url("provider"), bus, listener)
    finally:
        listening.cancel()
