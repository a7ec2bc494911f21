"""Payments and refunds: their states, and the idempotency keys that the provider knows them by."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final, Literal, Self, TypeAlias
from uuid import UUID

from events.contracts import (
    NO_PROVIDER,
    Declined,
    Invoiced,
    Paid,
    PaymentConfirmed,
    PaymentDetails,
    PaymentFailed,
    PaymentRefunded,
    Reason,
    RefundDetails,
    Refunded,
    Undeliverable,
)
from events.text import storable

KEY_LIFETIME: Final = timedelta(hours=23)
"""How long a key is used after its first use.

Stripe may forget a key 24 hours after its first use (https://docs.stripe.com/api/idempotent_requests). The
hour in between allows for differing clocks and for requests under way.
"""
LOOK_UP_AFTER: Final = timedelta(hours=24)
"""Age at which an unanswered key is looked up: an hour after its last use, when search finds everything."""

REFUND_PAUSES: Final = (timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1))
"""Pauses after failed tries of a refund: four tries in all."""

PAYMENT: Final = "payment"
"""The purpose that the id of an order's payment is derived for."""
SHIPMENT_FAILED: Final = "SHIPMENT_ERROR"
"""The cause of a refund: the type of the event that asks for it."""

NO_REFERENCE: Final = "none"
"""Stands for the provider's id of a charge or refund of 0, which no provider is asked for."""

RequestForm: TypeAlias = Literal[1, 2]
"""Which parameters the provider is asked with: from 2 on also a description and the recipient.

A provider refuses a key that it knows with other parameters. So a payment keeps the form that it was begun
with: its row says which. Rows that version 1 of the events has written have form 1.
"""
PRESENT_FORM: Final[RequestForm] = 2


class IllegalTransition(Exception):
    """The payment or refund is not in the state that this transition starts from."""


class WrongAmount(Exception):
    """The provider moved another amount than the order's total."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The key that the provider is asked under for a payment or a refund.

    The key is derived from the id, so every process asks for the same payment under the same key. While the
    key `is_usable`, the provider answers a repeated request with the first outcome. A forgotten key would
    move the money a second time, so a key that `must_be_looked_up` is looked up instead; between the two ages
    billing waits. The `next` key is used only after the provider has said that nothing was done under this
    one and that nothing can be.
    """

    owner: UUID
    generation: int = 1
    age: timedelta = timedelta(0)
    """Time since the key may first have been used, by the database's clock."""

    def __str__(self) -> str:
        return f"{self.owner}-{self.generation}"

    @property
    def is_usable(self) -> bool:
        """Whether the provider surely remembers the key, if it was used."""
        return self.age <= KEY_LIFETIME

    @property
    def must_be_looked_up(self) -> bool:
        """Whether the provider may have forgotten the key, so that its outcome has to be looked up."""
        return self.age > LOOK_UP_AFTER

    def next(self) -> "IdempotencyKey":
        """The key that replaces this one."""
        return IdempotencyKey(self.owner, self.generation + 1)


def derive_id(order_id: UUID, purpose: str) -> UUID:
    """Derives the id of an order's payment, or of its refund for one cause: a UUIDv7 with the order's time.

    The same order and purpose give the same id. So after a database restore a payment is requested under the
    key that was used before.
    """
    digest = int.from_bytes(sha256(order_id.bytes + purpose.encode()).digest()[:10])
    random = digest & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62  # version and variant
    return UUID(int=order_id.int >> 80 << 80 | random)


PaymentState: TypeAlias = Literal["pending", "captured", "declined"]
RefundState: TypeAlias = Literal["pending", "refunded", "dead"]


@dataclass(frozen=True, slots=True)
class Payment:
    """The payment of an order's total: pending, then captured or declined. Both are final.

    A key must always be used with the same request, so `payment_method` and `form` never change.
    """

    id: UUID
    invoiced: Invoiced
    payment_method: str
    """The provider's token."""
    key: IdempotencyKey
    form: RequestForm = PRESENT_FORM
    state: PaymentState = "pending"
    outcome: Paid | Declined | None = None
    """The data of the event to announce; None while pending."""

    def captured(self, *, provider: str, reference: str, amount: int, currency: str, at: datetime) -> Self:
        """The provider has captured the money. Raises WrongAmount if that is not the order's total."""
        self._must_be_pending()
        order = self.invoiced.order
        if (amount, currency) != (order.total, order.currency):
            raise WrongAmount(f"{amount} {currency} captured for an order of {order.total} {order.currency}.")
        outcome = _paid(self.invoiced, self.id, provider, reference, at)
        return replace(self, state="captured", outcome=outcome)

    def declined(self, *, code: str, message: str) -> Self:
        """The provider has declined: nothing was charged and nothing will be."""
        self._must_be_pending()
        reason = Reason(code=storable(code, 64), message=storable(message, 500), stage="payment")
        outcome = Declined(order=self.invoiced.order, invoice=self.invoiced.invoice, reason=reason)
        return replace(self, state="declined", outcome=outcome)

    def under_next_key(self) -> Self:
        """The provider has said that nothing was charged under the present key and nothing can be."""
        self._must_be_pending()
        return replace(self, key=self.key.next())

    def announcement(self) -> PaymentConfirmed | PaymentFailed:
        """Makes the event of a settled payment, with a new id: call it once, where the state changes."""
        if isinstance(self.outcome, Paid):
            return PaymentConfirmed.of(self.outcome)
        if self.outcome is None:
            raise IllegalTransition(f"Payment {self.id} is not settled yet.")
        return PaymentFailed.of(self.outcome)

    def _must_be_pending(self) -> None:
        if self.state != "pending":
            raise IllegalTransition(f"Payment {self.id} is {self.state}.")


@dataclass(frozen=True, slots=True)
class FreePayment:
    """The payment of an order whose total is 0: captured from the beginning. No provider hears of it."""

    id: UUID
    invoiced: Invoiced
    outcome: Paid

    @classmethod
    def of(cls, invoiced: Invoiced, at: datetime) -> Self:
        """The payment of this order, captured at this time. Raises WrongAmount if its total is not 0."""
        order = invoiced.order
        if order.total:
            raise WrongAmount(f"Nothing was charged for an order of {order.total} {order.currency}.")
        payment_id = derive_id(order.id, PAYMENT)
        return cls(payment_id, invoiced, _paid(invoiced, payment_id, NO_PROVIDER, NO_REFERENCE, at))

    def announcement(self) -> PaymentConfirmed:
        """Makes the event, with a new id: call it once, where the payment is added."""
        return PaymentConfirmed.of(self.outcome)


def payment_for(invoiced: Invoiced, at: datetime) -> Payment | FreePayment:
    """The payment of an invoiced order: pending, or captured at this time if the order's total is 0."""
    if invoiced.payment_method is None or not invoiced.order.total:
        return FreePayment.of(invoiced, at)
    payment_id = derive_id(invoiced.order.id, PAYMENT)
    return Payment(payment_id, invoiced, invoiced.payment_method, IdempotencyKey(payment_id))


def _paid(invoiced: Invoiced, payment_id: UUID, provider: str, reference: str, at: datetime) -> Paid:
    order = invoiced.order
    payment = PaymentDetails(
        id=str(payment_id),
        provider=provider,
        provider_reference=reference,
        amount=order.total,
        captured_at=at,
    )
    return Paid(order=order, invoice=invoiced.invoice, payment=payment)


@dataclass(frozen=True, slots=True)
class Refund:
    """The refund of a whole captured payment: pending, then refunded.

    A refund that the provider does not make is dead. An operator then has it tried again, or records how the
    money was given back. A payment of 0 is refunded from the beginning, without a provider.
    """

    id: UUID
    undeliverable: Undeliverable
    key: IdempotencyKey
    state: RefundState = "pending"
    outcome: Refunded | None = None
    failure: str | None = None
    """Why the last try failed."""
    pause: timedelta = timedelta(0)
    """Pause before the next try."""

    @classmethod
    def due_for(cls, undeliverable: Undeliverable, at: datetime) -> Self:
        """The refund of an undeliverable order: pending, or made at this time if no provider has money.

        Raises WrongAmount if money was captured, and by no provider.
        """
        refund_id = derive_id(undeliverable.order.id, SHIPMENT_FAILED)
        refund = cls(refund_id, undeliverable, IdempotencyKey(refund_id))
        if undeliverable.payment.provider == NO_PROVIDER:
            return refund.refunded(reference=NO_REFERENCE, amount=0, at=at)
        return refund

    def refunded(self, *, reference: str, amount: int, at: datetime) -> Self:
        """The provider has refunded the money. Raises WrongAmount if that is not the whole payment."""
        self._must_be("pending")
        if amount != self.undeliverable.payment.amount:
            raise WrongAmount(f"{amount} refunded of a payment of {self.undeliverable.payment.amount}.")
        return self._settled(reference, at, by_hand=False)

    def recorded_by_hand(self, *, reference: str, at: datetime) -> Self:
        """A person has given the whole payment back outside this system. Only a dead refund can be recorded.

        While a refund is pending the provider may still make it, and the customer would get the money twice.
        """
        self._must_be("dead")
        return self._settled(reference, at, by_hand=True)

    def under_next_key(self) -> Self:
        """The provider has said that nothing was refunded under the present key and nothing can be."""
        self._must_be("pending")
        return replace(self, key=self.key.next())

    def failed(self, reason: str, *, final: bool = False) -> Self:
        """The provider has ended this try without refunding: it is tried again after a pause, or dead.

        The next try has the next key, because the present key would give the same failure again. A `final`
        failure is one that every other try would meet.
        """
        self._must_be("pending")
        tries = self.key.generation
        if final or tries > len(REFUND_PAUSES):
            return replace(self, key=self.key.next(), state="dead", failure=reason)
        return replace(self, key=self.key.next(), failure=reason, pause=REFUND_PAUSES[tries - 1])

    def announcement(self) -> PaymentRefunded:
        """Makes the event of a refund that was made, with a new id: call it once, where the state changes."""
        if self.outcome is None:
            raise IllegalTransition(f"Refund {self.id} is not made yet.")
        return PaymentRefunded.of(self.outcome)

    def _settled(self, reference: str, at: datetime, *, by_hand: bool) -> Self:
        was = self.undeliverable
        refund = RefundDetails(
            id=str(self.id),
            provider_reference=reference,
            amount=was.payment.amount,
            refunded_at=at,
            by_hand=by_hand,
        )
        outcome = Refunded(
            order=was.order, invoice=was.invoice, payment=was.payment, reason=was.reason, refund=refund
        )
        return replace(self, state="refunded", outcome=outcome)

    def _must_be(self, state: RefundState) -> None:
        if self.state != state:
            raise IllegalTransition(f"Refund {self.id} is {self.state}, not {state}.")
