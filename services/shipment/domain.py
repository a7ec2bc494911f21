"""Shipments: what a shipment may become, and the key under which the carrier knows it."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeAlias
from uuid import UUID

from events import contracts
from events.contracts import Dispatched, Paid, Reason, ShipmentError, Shipped, Undeliverable

ShipmentState: TypeAlias = Literal["pending", "shipped", "refused"]


@dataclass(frozen=True, slots=True)
class Shipment:
    """The parcel of one paid order: pending, then shipped or refused for good."""

    id: UUID
    paid: Paid
    state: ShipmentState = "pending"
    outcome: Dispatched | Undeliverable | None = None
    """The details to announce, once there is one."""

    @property
    def key(self) -> str:
        """The carrier's idempotency key: it follows from the order, so that an order is booked once."""
        return f"order-{self.paid.order.id}"

    def shipped(self, *, carrier: str, tracking_number: str, at: datetime) -> "Shipment":
        """The carrier has taken the parcel."""
        details = contracts.ShipmentDetails(
            id=str(self.id), carrier=carrier, tracking_number=tracking_number, booked_at=at
        )
        paid = self.paid
        outcome = Dispatched(order=paid.order, invoice=paid.invoice, payment=paid.payment, shipment=details)
        return replace(self, state="shipped", outcome=outcome)

    def refused(self, *, code: str, message: str) -> "Shipment":
        """The carrier has refused the parcel for good."""
        reason = Reason(code=code, message=message, stage="shipment")
        paid = self.paid
        outcome = Undeliverable(order=paid.order, invoice=paid.invoice, payment=paid.payment, reason=reason)
        return replace(self, state="refused", outcome=outcome)

    def announcement(self) -> Shipped | ShipmentError:
        """A new event about the outcome: call it once, where the state changes."""
        assert self.outcome, f"Shipment {self.id} is {self.state}: there is nothing to announce."
        if isinstance(self.outcome, Dispatched):
            return Shipped.of(self.outcome)
        return ShipmentError.of(self.outcome)
