"""What the order does about events: it notes what has become of its orders."""

from collections.abc import Sequence

from events.contracts import (
    AnyEvent,
    InvoiceCreated,
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


async def record(events: Sequence[AnyEvent], tx: Transaction) -> None:
    """Each event becomes a line in its order's timeline; one about no order of ours is dead at once."""
    await repository.record(tx, [(event.subject, Entry.of(event)) for event in events])


HANDLERS: Handlers = {
    InvoiceCreated: record,
    PaymentFailed: record,
    PaymentConfirmed: record,
    ShipmentError: record,
    Shipped: record,
    PaymentRefunded: record,
}
