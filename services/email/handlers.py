"""Email's event handlers: they write pending mails. `work` then delivers them."""

from collections.abc import Sequence

from events.contracts import (
    AnyMilestone,
    InvoiceCreated,
    OrderCreated,
    PaymentConfirmed,
    PaymentFailed,
    PaymentRefunded,
    ShipmentError,
    Shipped,
)
from events.transaction import Transaction
from events.worker import Handlers
from services.email import repository
from services.email.domain import Mail


async def write_to_customers(events: Sequence[AnyMilestone], tx: Transaction) -> None:
    """A pending mail for each event, unless its order has a mail of this stage already."""
    tx.intend(*await repository.add(tx, [Mail.about(event) for event in events]))


HANDLERS: Handlers = {
    OrderCreated: write_to_customers,
    InvoiceCreated: write_to_customers,
    PaymentFailed: write_to_customers,
    PaymentConfirmed: write_to_customers,
    ShipmentError: write_to_customers,
    Shipped: write_to_customers,
    PaymentRefunded: write_to_customers,
}
