"""The carrier: shipment's request to it, and its answers.

Every answer is final. Without an answer one of `events.errors` is raised: Unavailable (the carrier can't be
reached), Postponed (it has not decided about this parcel yet) or UnknownOutcome (it did not answer clearly).
It may have booked even then; asking again under the same key is safe.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias

from events.contracts import Address


@dataclass(frozen=True, slots=True)
class Label:
    """Whom the parcel goes to, as it is printed on its label."""

    name: str
    address: Address
    """Its `shown_postal_code` is printed, and none of its names."""
    company: str | None = None
    phone: str | None = None
    """The customer's number, for the driver."""


@dataclass(frozen=True, slots=True)
class Booked:
    """The carrier takes the parcel."""

    tracking_number: str
    """UPU S10, such as `RR473124829BR`."""
    at: datetime


@dataclass(frozen=True, slots=True)
class Refused:
    """The carrier does not take the parcel and never will."""

    code: str
    message: str
    """A sentence for the customer."""


BookingAnswer: TypeAlias = Booked | Refused


class Carrier(Protocol):
    """Takes parcels. Asking again under the same key never books a second one."""

    @property
    def name(self) -> str:
        """The carrier's name in events and mails."""
        ...

    async def book(self, key: str, label: Label) -> BookingAnswer:
        """Books a parcel with this label, or repeats the booking that was made under this key before."""
        ...
