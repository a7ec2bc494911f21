"""Booking: asks the carrier for each pending shipment, and announces its answer once."""

from collections.abc import Sequence
from typing import Final

from events import delays, journey
from events.contracts import Order
from events.retry import RetryPolicy
from events.runner import Runner
from events.transaction import Transaction
from events.transactions import Transactions
from services.shipment import repository
from services.shipment.carrier import Booked, Carrier, Label, Refused
from services.shipment.domain import Shipment

BOOKING_RETRIES: Final = RetryPolicy(deadline=10, first=1, longest=30)


class Booking:
    """Books one shipment at a time, and settles many."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    async def perform(self, shipment: Shipment) -> Shipment:
        """The shipment as the carrier's answer leaves it: shipped or refused."""
        match await self._carrier.book(shipment.key, _label(shipment.paid.order)):
            case Booked(tracking_number, at):
                return shipment.shipped(carrier=self._carrier.name, tracking_number=tracking_number, at=at)
            case Refused(code, message):
                return shipment.refused(code=code, message=message)

    async def settle(self, tx: Transaction, performed: Sequence[tuple[Shipment, Shipment]]) -> None:
        """Writes the outcomes. Emits an event for each shipment that this call has settled."""
        changed = await repository.settle(tx, [shipment for _, shipment in performed])
        tx.emit(*(shipment.announcement() for shipment in changed))


def _label(order: Order) -> Label:
    return Label(
        order.recipient, order.shipping_address, company=order.recipient_company, phone=order.customer.phone
    )


def runner_of_bookings(
    carrier: Carrier, transactions: Transactions, *, sweep_seconds: float = 5.0
) -> Runner[Shipment, Shipment]:
    """The runner that books pending shipments."""
    booking = Booking(carrier)
    return Runner(
        "shipment bookings",
        repository.PENDING_SHIPMENTS,
        transactions,
        booking.perform,
        booking.settle,
        policy=BOOKING_RETRIES,
        delayed=delays.for_stage(journey.SHIPMENT, lambda shipment: shipment.paid.order),
        sweep_seconds=sweep_seconds,
    )
