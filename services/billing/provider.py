"""The payment provider: billing's requests to it, and its answers.

Every answer is final. Without an answer one of `events.errors` is raised: Unavailable (the provider can't be
reached or asks for a pause), Postponed (it has not decided about this request yet) or UnknownOutcome (a
timeout, an error midway, an answer that can't be read or is about another payment). It may have acted even
then; asking again under the same key is safe.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias
from uuid import UUID

from events.contracts import Address


@dataclass(frozen=True, slots=True)
class Recipient:
    """Where the goods go: for the provider's checks against fraud, and the rules of its countries."""

    name: str
    address: Address
    phone: str | None = None


@dataclass(frozen=True, slots=True)
class ChargeRequest:
    """Asks for the capture of an order's total.

    All requests under one key are equal.
    """

    key: str
    """Idempotency key: the provider makes at most one charge per key."""
    payment_id: UUID
    order_id: UUID
    amount: int
    """Minor units of the currency (ISO 4217)."""
    currency: str
    payment_method: str
    """The provider's token."""
    order_reference: str | None = None
    """The caller's own number of the order. Like `key_hash` it is metadata and does not affect the answer."""
    key_hash: str | None = None
    """SHA-256 of the `Idempotency-Key` that made the order, in hexadecimal."""
    description: str | None = None
    """What is paid for, in words for the shop."""
    recipient: Recipient | None = None


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """Asks for the refund of a whole captured payment."""

    key: str
    refund_id: UUID
    order_id: UUID
    charge_reference: str
    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class ChargeCaptured:
    """The provider has the money."""

    reference: str
    """The provider's id of the charge."""
    amount: int
    currency: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ChargeDeclined:
    """The provider charged nothing for this payment and never will."""

    code: str
    """Stripe's decline code, or error code where there is none, or one of `events.limits`; see `declines`."""
    message: str
    """A sentence for the customer, without the payment method's token."""


@dataclass(frozen=True, slots=True)
class KeyVoid:
    """The provider did nothing under this key and never will. Ask again under the next key."""


@dataclass(frozen=True, slots=True)
class RefundSucceeded:
    """The provider has refunded the money."""

    reference: str
    amount: int
    at: datetime


@dataclass(frozen=True, slots=True)
class RefundFailed:
    """The provider refunded nothing and never will under this key."""

    reason: str
    """A sentence for an operator."""
    final: bool = False
    """Whether every other try would fail too."""


@dataclass(frozen=True, slots=True)
class ListedCharge:
    """A charge of ours that succeeded, as the provider lists it with its metadata."""

    reference: str
    """The provider's id of the charge."""
    payment_id: UUID
    order_id: UUID
    amount: int
    currency: str
    at: datetime
    order_reference: str | None = None
    key_hash: str | None = None


@dataclass(frozen=True, slots=True)
class ListedRefund:
    """A refund that succeeded or is under way, as the provider lists it."""

    reference: str
    charge_reference: str
    amount: int
    at: datetime
    refund_id: UUID | None = None
    """Our own id; None for a refund that a person made at the provider."""


ChargeAnswer: TypeAlias = ChargeCaptured | ChargeDeclined | KeyVoid
RefundAnswer: TypeAlias = RefundSucceeded | RefundFailed | KeyVoid


class Provider(Protocol):
    """Charges and refunds. A repeated request under the same key moves no money a second time."""

    @property
    def name(self) -> str:
        """The name that is stored with each payment."""
        ...

    async def charge(self, request: ChargeRequest) -> ChargeAnswer:
        """Captures the amount. Under a key that was used before, returns the outcome of that charge."""
        ...

    async def look_up_charge(self, request: ChargeRequest) -> ChargeAnswer:
        """Finds the payment's charge under any key. Charges nothing; cancels a charge that is unfinished."""
        ...

    async def refund(self, request: RefundRequest) -> RefundAnswer:
        """Refunds the amount. Under a key that was used before, returns the outcome of that refund."""
        ...

    async def look_up_refund(self, request: RefundRequest) -> RefundAnswer:
        """Finds the refund under any key. Refunds nothing."""
        ...


class ProviderLists(Protocol):
    """The provider's own lists of charges and refunds."""

    def list_charges(self, since: datetime | None = None) -> AsyncGenerator[ListedCharge, None]:
        """Lists our charges that succeeded, newest first; with `since`, those requested then or later.

        A charge is ours if its metadata names a payment and an order.
        """
        ...

    def list_refunds(self, since: datetime | None = None) -> AsyncGenerator[ListedRefund, None]:
        """Lists refunds that have not failed, newest first; with `since`, those requested then or later."""
        ...


class ListingProvider(Provider, ProviderLists, Protocol):
    """A provider as `main` connects to it."""
