"""Payments and refunds: what they may become, and which key they are known by at the provider."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final, Literal, TypeAlias
from uuid import UUID

from events.contracts import (
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

Stripe may forget a key 24 hours after its first use (https://docs.stripe.com/api/idempotent_requests); the
hour between is for clocks and for requests that are under way.
"""
LOOK_UP_AFTER: Final = timedelta(hours=24)
"""When an unanswered key is looked up: an hour after its last use, so the provider's search knows all."""

REFUND_PAUSES: Final = (timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1))
"""How long a refund waits after each try that the provider ended without giving back: four tries in all."""

SHIPMENT_FAILED: Final = "SHIPMENT_ERROR"
"""The cause of a refund: the event that asks for it."""


class IllegalTransition(Exception):
    """What is settled can't be settled again."""


class WrongAmount(Exception):
    """The provider moved another amount than the order's total."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Under which key the provider is asked for a payment or a refund, and how it may be asked now.

    The key follows from the id, so whoever asks for the same payment asks under the same key. While it
    `is_live` the provider answers it with what it did the first time. A key that `is_over` is looked up
    instead, because under a forgotten key the provider would do the work a second time; between the two
    nobody asks. There is a `next` key only after the provider has told that nothing was done under this one
    and that nothing can be done under it any more.
    """

    owner: UUID
    generation: int = 1
    age: timedelta = timedelta(0)
    """Time since its first use, by the database's clock."""

    def __str__(self) -> str:
        return f"{self.owner}-{self.generation}"

    @property
    def is_live(self) -> bool:
        """Whether the provider surely still knows it, if it was used."""
        return self.age <= KEY_LIFETIME

    @property
    def is_over(self) -> bool:
        """Whether it is time to look up what was done under it."""
        return self.age > LOOK_UP_AFTER

    def next(self) -> "IdempotencyKey":
        """The key after one under which nothing was and nothing can be done."""
        return IdempotencyKey(self.owner, self.generation + 1)


def id_for(order_id: UUID, purpose: str) -> UUID:
    """The one id of an order's payment, or of its refund for one cause: a UUIDv7 of the order's own time.

    It follows from the order, so a payment that has to be made anew after a restore is asked for under the
    key that was used before.
    """
    digest = int.from_bytes(sha256(order_id.bytes + purpose.encode()).digest()[:10])
    random = digest & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62  # version and variant
    return UUID(int=order_id.int >> 80 << 80 | random)


PaymentState: TypeAlias = Literal["pending", "captured", "declined"]
RefundState: TypeAlias = Literal["pending", "refunded", "dead"]


@dataclass(frozen=True, slots=True)
class Payment:
    """The payment of one order, over its total: pending, then captured or declined, for good."""

    id: UUID
    invoiced: Invoiced
    key: IdempotencyKey
    state: PaymentState = "pending"
    outcome: Paid | Declined | None = None
    """The fact to announce, once there is one."""

    @classmethod
    def due_for(cls, invoiced: Invoiced) -> "Payment":
        """The payment of an invoiced order, as it begins."""
        payment_id = id_for(invoiced.order.id, "payment")
        return cls(payment_id, invoiced, IdempotencyKey(payment_id))

    def captured(
        self, *, provider: str, reference: str, amount: int, currency: str, at: datetime
    ) -> "Payment":
        """The provider has captured the money. Raises WrongAmount unless it is the order's total."""
        self._must_be_pending()
        order = self.invoiced.order
        if (amount, currency) != (order.total, order.currency):
            raise WrongAmount(
                f"{amount} {currency} captured for an order over {order.total} {order.currency}."
            )
        fact = PaymentDetails(
            id=str(self.id), provider=provider, provider_reference=reference, amount=amount, captured_at=at
        )
        outcome = Paid(order=order, invoice=self.invoiced.invoice, payment=fact)
        return replace(self, state="captured", outcome=outcome)

    def declined(self, *, code: str, message: str) -> "Payment":
        """The provider has refused for good; nothing was charged and nothing can be."""
        self._must_be_pending()
        reason = Reason(code=storable(code, 64), message=storable(message, 500), stage="payment")
        outcome = Declined(order=self.invoiced.order, invoice=self.invoiced.invoice, reason=reason)
        return replace(self, state="declined", outcome=outcome)

    def under_next_key(self) -> "Payment":
        """The provider has told that nothing was and nothing can be charged under the present key."""
        self._must_be_pending()
        return replace(self, key=self.key.next())

    def announcement(self) -> PaymentConfirmed | PaymentFailed:
        """The event of a settled payment, made new: call it once, where the state changes."""
        if isinstance(self.outcome, Paid):
            return PaymentConfirmed.of(self.outcome)
        if self.outcome is None:
            raise IllegalTransition(f"Payment {self.id} is not settled, there is nothing to announce.")
        return PaymentFailed.of(self.outcome)

    def _must_be_pending(self) -> None:
        if self.state != "pending":
            raise IllegalTransition(f"Payment {self.id} is {self.state}.")


@dataclass(frozen=True, slots=True)
class Refund:
    """A captured payment given back, whole: pending, then refunded.

    One that the provider does not make is dead: it waits for an operator, who has it tried again or records
    how the money was given back.
    """

    id: UUID
    undeliverable: Undeliverable
    key: IdempotencyKey
    state: RefundState = "pending"
    outcome: Refunded | None = None
    failure: str | None = None
    """Why the last try gave nothing back."""
    pause: timedelta = timedelta(0)
    """How long the next try waits."""

    @classmethod
    def due_for(cls, undeliverable: Undeliverable) -> "Refund":
        """The refund of an order's payment, as it begins."""
        refund_id = id_for(undeliverable.order.id, SHIPMENT_FAILED)
        return cls(refund_id, undeliverable, IdempotencyKey(refund_id))

    def refunded(self, *, reference: str, amount: int, at: datetime) -> "Refund":
        """The provider has given the money back. Raises WrongAmount unless it is all of the payment."""
        self._must_be("pending")
        if amount != self.undeliverable.payment.amount:
            raise WrongAmount(f"{amount} given back of a payment over {self.undeliverable.payment.amount}.")
        return self._settled(reference, at, by_hand=False)

    def recorded_by_hand(self, *, reference: str, at: datetime) -> "Refund":
        """A person has given all of the money back, outside this system. Only for one that is dead.

        While it is pending the provider may still give the money back, a second time.
        """
        self._must_be("dead")
        return self._settled(reference, at, by_hand=True)

    def under_next_key(self) -> "Refund":
        """The provider has told that nothing was and nothing can be given back under the present key."""
        self._must_be("pending")
        return replace(self, key=self.key.next())

    def failed(self, reason: str, *, final: bool = False) -> "Refund":
        """The provider has ended this try without giving back: the next waits, or it waits for an operator.

        In any case it goes on under the next key, because the present one gives the same failure again.
        A `final` failure is one that no other try can change.
        """
        self._must_be("pending")
        tries = self.key.generation
        if final or tries > len(REFUND_PAUSES):
            return replace(self, key=self.key.next(), state="dead", failure=reason)
        return replace(self, key=self.key.next(), failure=reason, pause=REFUND_PAUSES[tries - 1])

    def announcement(self) -> PaymentRefunded:
        """The event of a refund that was made, made new: call it once, where the state changes."""
        if self.outcome is None:
            raise IllegalTransition(f"Refund {self.id} is not made, there is nothing to announce.")
        return PaymentRefunded.of(self.outcome)

    def _settled(self, reference: str, at: datetime, *, by_hand: bool) -> "Refund":
        was = self.undeliverable
        fact = RefundDetails(
            id=str(self.id),
            provider_reference=reference,
            amount=was.payment.amount,
            refunded_at=at,
            by_hand=by_hand,
        )
        outcome = Refunded(
            order=was.order, invoice=was.invoice, payment=was.payment, reason=was.reason, refund=fact
        )
        return replace(self, state="refunded", outcome=outcome)

    def _must_be(self, state: RefundState) -> None:
        if self.state != state:
            raise IllegalTransition(f"Refund {self.id} is {self.state}, not {state}.")
