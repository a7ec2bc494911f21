"""The rules of a shipment: what is asked of the carrier, and what its answer means for the order."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from events import contracts
from events.contracts import Address, Dispatched, Paid, Reason, ShipmentError, Shipped, Undeliverable


@dataclass(frozen=True, slots=True)
class Booking:
    """The carrier's word that it takes the parcel."""

    carrier: str
    tracking_number: str
    """UPU S10, such as `RR473124829BR`."""
    booked_at: datetime


@dataclass(frozen=True, slots=True)
class Shipment:
    """A paid order's parcel, to be booked with the carrier."""

    id: UUID
    paid: Paid

    @property
    def key(self) -> str:
        """What the carrier knows it by: asking again with the same key books nothing new."""
        return f"order-{self.paid.order.id}"

    @property
    def address(self) -> Address:
        """Where it goes."""
        return self.paid.order.shipping_address

    def shipped(self, booking: Booking) -> Shipped:
        """The carrier took it."""
        shipment = contracts.ShipmentDetails(
            id=str(self.id),
            carrier=booking.carrier,
            tracking_number=booking.tracking_number,
            booked_at=booking.booked_at,
        )
        paid = self.paid
        return Shipped.of(
            Dispatched(order=paid.order, invoice=paid.invoice, payment=paid.payment, shipment=shipment)
        )

    def refused(self, reason: Reason) -> ShipmentError:
        """The carrier refused it for good."""
        paid = self.paid
        return ShipmentError.of(
            Undeliverable(order=paid.order, invoice=paid.invoice, payment=paid.payment, reason=reason)
        )
