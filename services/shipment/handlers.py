"""What the shipment service does about events, and about the work that they leave behind."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from events import delays, journey
from events.contracts import PaymentConfirmed, Reason
from events.retry import RetryPolicy
from events.runner import Runner
from events.transaction import Transaction
from events.transactions import Transactions
from events.worker import Handlers
from services.shipment import repository
from services.shipment.carrier import DestinationUnserved, SimulatedCarrier
from services.shipment.domain import Booking, Shipment

BOOKING: Final = RetryPolicy(deadline=10, first=1, longest=30)


async def prepare_shipments(events: Sequence[PaymentConfirmed], tx: Transaction) -> None:
    """One shipment to be booked for each paid order. An order that has one already changes nothing."""
    tx.intend(*await repository.add(tx, [event.data for event in events]))


async def ask(carrier: SimulatedCarrier, shipment: Shipment) -> Booking | Reason:
    """The carrier's answer: a booking, or why it refuses for good."""
    try:
        return await carrier.book(shipment.key, shipment.address)
    except DestinationUnserved as refusal:
        return Reason(code="destination_unserved", message=str(refusal), stage="shipment")


async def settle(tx: Transaction, answers: Sequence[tuple[Shipment, Booking | Reason]]) -> None:
    """Writes the carrier's answers down and announces them, each once."""
    settled = await repository.settle(tx, {shipment.id: answer for shipment, answer in answers})
    for shipment, answer in answers:
        if shipment.id in settled:
            tx.emit(shipment.shipped(answer) if isinstance(answer, Booking) else shipment.refused(answer))


def runner(
    carrier: SimulatedCarrier, transactions: Transactions, *, sweep_seconds: float = 5.0
) -> Runner[Shipment, Booking | Reason]:
    """The runner that books pending shipments with the carrier."""
    return Runner(
        "shipment bookings",
        repository.LEASES,
        transactions,
        partial(ask, carrier),
        settle,
        policy=BOOKING,
        delayed=delays.for_stage(journey.SHIPMENT, lambda shipment: shipment.paid.order),
        sweep_seconds=sweep_seconds,
    )


HANDLERS: Final[Handlers] = {PaymentConfirmed: prepare_shipments}
