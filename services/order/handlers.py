"""How the order service handles events: it records them with the orders that they are about."""

from collections.abc import Sequence

from events.contracts import (
    AnyMilestone,
    InvoiceCreated,
    OrderDelayed,
    PaymentConfirmed,
    PaymentFailed,
    PaymentRefunded,
    ShipmentError,
    Shipped,
)
from events.transaction import Transaction
from events.worker import Handlers
from services.order import repository
from services.order.domain import TimelineEntry


async def record_milestones(events: Sequence[AnyMilestone], tx: Transaction) -> None:
    """Adds each event to its order's timeline. An event about an unknown order is parked as dead."""
    await repository.record_milestones(tx, [(event.subject, TimelineEntry.of(event)) for event in events])


async def record_delays(events: Sequence[OrderDelayed], tx: Transaction) -> None:
    """Keeps each delay beside its order's timeline. A delay of an unknown order is ignored."""
    await repository.record_delays(tx, [(event.subject, TimelineEntry.of(event)) for event in events])


HANDLERS: Handlers = {
    InvoiceCreated: record_milestones,
    PaymentFailed: record_milestones,
    PaymentConfirmed: record_milestones,
    ShipmentError: record_milestones,
    Shipped: record_milestones,
    PaymentRefunded: record_milestones,
    OrderDelayed: record_delays,
}
