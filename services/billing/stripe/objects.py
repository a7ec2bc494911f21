"""The fields of Stripe's objects that billing reads: amounts in Stripe's minor unit, times in Unix seconds.

https://docs.stripe.com/api/payment_intents/object, https://docs.stripe.com/api/refunds/object,
https://docs.stripe.com/api/pagination
"""

from datetime import UTC, datetime
from typing import Generic, TypeVar

from msgspec import Struct

T = TypeVar("T")


class PaymentError(Struct, frozen=True):
    """Why the last attempt to pay an intent failed."""

    code: str | None = None
    decline_code: str | None = None


class Charge(Struct, frozen=True):
    """A charge of an intent."""

    created: int


class Intent(Struct, frozen=True):
    """A PaymentIntent."""

    id: str
    status: str
    amount: int
    currency: str
    created: int
    metadata: dict[str, str]
    amount_received: int = 0
    last_payment_error: PaymentError | None = None
    latest_charge: Charge | str | None = None

    @property
    def captured_at(self) -> datetime:
        """The time of the latest charge, or of the intent's creation where the charge is not expanded."""
        charge = self.latest_charge
        return datetime.fromtimestamp(charge.created if isinstance(charge, Charge) else self.created, UTC)


class ListedIntent(Struct, frozen=True):
    """A payment intent of this account, perhaps made by another system."""

    id: str
    metadata: dict[str, str] = {}


class Refund(Struct, frozen=True):
    """A refund, perhaps made by somebody else."""

    id: str
    status: str
    amount: int
    currency: str
    created: int
    payment_intent: str | None = None
    metadata: dict[str, str] = {}
    failure_reason: str | None = None
    pending_reason: str | None = None

    @property
    def has_failed(self) -> bool:
        """Whether it ended without a refund: https://docs.stripe.com/refunds#failed-refunds."""
        return self.status in ("failed", "canceled")

    @property
    def created_at(self) -> datetime:
        """`created` as a time."""
        return datetime.fromtimestamp(self.created, UTC)


class Page(Struct, Generic[T], frozen=True):
    """One page of a list or of search results."""

    data: list[T]
    has_more: bool = False
