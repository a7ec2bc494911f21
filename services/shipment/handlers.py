"""Shipment's event handlers: they write pending shipments. `work` then asks the carrier."""

from collections.abc import Sequence
from typing import Final

from events.contracts import PaymentConfirmed
from events.transaction import Transaction
from events.worker import Handlers
from services.shipment import repository


async def prepare_shipments(events: Sequence[PaymentConfirmed], tx: Transaction) -> None:
    """A pending shipment for each paid order that has none yet."""
    tx.intend(*await repository.add(tx, [event.data for event in events]))


HANDLERS: Final[Handlers] = {PaymentConfirmed: prepare_shipments}
