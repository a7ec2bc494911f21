"""The payment provider: what billing asks of it, and what it may answer.

An answer is definite. Whatever is not raises `events.errors.Unavailable` (the provider can't be reached, or
asks for a pause: nothing was decided), `events.errors.Postponed` (it has not decided about this one yet) or
`events.errors.UnknownOutcome` (a timeout, an error in the middle, an answer that makes no sense or is about
another payment).
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Charge:
    """An order's total to be captured."""

    key: str
    """Idempotency key: the same charge under the same key is made once."""
    payment_id: UUID
    order_id: UUID
    amount: int
    """Minor units of the currency (ISO 4217)."""
    currency: str
    payment_method: str
    """The provider's token."""
    order_reference: str | None = None
    """The caller's own number of the order. Like `key_hash` it is metadata, and changes no answer."""
    key_hash: str | None = None
    """SHA-256 of the `Idempotency-Key` that made the order, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Repayment:
    """A captured payment to be given back, whole."""

    key: str
    refund_id: UUID
    order_id: UUID
    charge_reference: str
    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class Captured:
    """The provider has the money."""

    reference: str
    """The provider's own id of it."""
    amount: int
    currency: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider charged nothing and never will: the payment is declined."""

    code: str
    """Stripe's decline code, or error code where there is none, or one of `events.limits`; see `refusals`."""
    message: str
    """A sentence for the customer; it does not contain the payment method's token."""


@dataclass(frozen=True, slots=True)
class NothingDone:
    """Under this key nothing was done, and nothing can be any more: it may be asked for under the next."""


@dataclass(frozen=True, slots=True)
class Repaid:
    """The provider has given the money back."""

    reference: str
    amount: int
    at: datetime


@dataclass(frozen=True, slots=True)
class NotRepaid:
    """The provider tried, or refused: nothing was given back, and nothing will be under this key."""

    reason: str
    """A sentence for an operator."""
    final: bool = False
    """Whether no other try can end otherwise."""


@dataclass(frozen=True, slots=True)
class MadeCharge:
    """A charge of ours that succeeded, as the provider lists it with its metadata."""

    reference: str
    """The provider's own id of it."""
    payment_id: UUID
    order_id: UUID
    amount: int
    currency: str
    at: datetime
    order_reference: str | None = None
    key_hash: str | None = None


@dataclass(frozen=True, slots=True)
class MadeRefund:
    """Money that the provider has given back or is giving back, as it lists it."""

    reference: str
    charge_reference: str
    amount: int
    at: datetime
    refund_id: UUID | None = None
    """Ours. A refund that a person made at the provider has none."""


ChargeAnswer: TypeAlias = Captured | Refused | NothingDone
RepaymentAnswer: TypeAlias = Repaid | NotRepaid | NothingDone


class Provider(Protocol):
    """Captures money and gives it back. Asking again under the same key never does it again."""

    @property
    def name(self) -> str:
        """What payments call it."""
        ...

    async def charge(self, charge: Charge) -> ChargeAnswer:
        """Captures the amount, or tells what became of it when it was asked before under this key."""
        ...

    async def look_up(self, charge: Charge) -> ChargeAnswer:
        """What became of the payment under any key; charges nothing. What is unfinished is made void."""
        ...

    async def repay(self, repayment: Repayment) -> RepaymentAnswer:
        """Gives the amount back, or tells what became of it when it was asked before under this key."""
        ...

    async def look_up_repayment(self, repayment: Repayment) -> RepaymentAnswer:
        """What became of the refund under any key; gives nothing back."""
        ...


class Records(Protocol):
    """What a provider tells of the past, with the metadata that charges were made with."""

    @property
    def name(self) -> str:
        """What payments call it."""
        ...

    def charges(self, since: datetime | None = None) -> AsyncGenerator[MadeCharge, None]:
        """Every charge of ours that succeeded, newest first; those asked for at `since` or later.

        A charge is ours if its metadata names a payment and an order.
        """
        ...

    def refunds(self, since: datetime | None = None) -> AsyncGenerator[MadeRefund, None]:
        """Every refund that has not failed, newest first; those asked for at `since` or later."""
        ...


class PaymentProvider(Provider, Records, Protocol):
    """All that a payment provider is asked."""
