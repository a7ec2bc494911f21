"""What the order does about events: it notes what has become of its orders."""

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
from services.order.domain import Entry


async def record(events: Sequence[AnyMilestone], tx: Transaction) -> None:
    """Each event becomes a line in its order's timeline; one about no order of ours is dead at once."""
    await repository.record(tx, [(event.subject, Entry.of(event)) for event in events])


async def note_delays(events: Sequence[OrderDelayed], tx: Transaction) -> None:
    """Each delay is kept beside its order's timeline. One about no order of ours changes nothing."""
    await repository.note(tx, [(event.subject, Entry.of(event)) for event in events])


HANDLERS: Handlers = {
    InvoiceCreated: record,
    PaymentFailed: record,
    PaymentConfirmed: record,
    ShipmentError: record,
    Shipped: record,
    PaymentRefunded: record,
    OrderDelayed: note_delays,
}
