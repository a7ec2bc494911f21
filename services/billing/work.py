"""The work at the payment provider: charges pending payments, makes pending refunds, announces the outcomes.

Charging and refunding stay two classes: they differ in the provider's verb, in its answers, and in the
meaning of a failure.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from events import delays, journey
from events.errors import NotAsked
from events.retry import RetryPolicy
from events.runner import Runner
from events.transaction import Transaction
from events.transactions import Transactions
from services.billing import repository
from services.billing.domain import IdempotencyKey, Payment, Refund
from services.billing.provider import (
    ChargeCaptured,
    ChargeDeclined,
    ChargeRequest,
    KeyVoid,
    Provider,
    Recipient,
    RefundFailed,
    RefundRequest,
    RefundSucceeded,
)

RETRIES: Final = RetryPolicy(deadline=10, first=1, longest=30)

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")

logger = logging.getLogger(__name__)


class AnotherProvider(Exception):
    """The payment was captured by another provider than the one that billing is set up with."""


class Charging:
    """Charges pending payments."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def perform(self, payment: Payment) -> Payment:
        """Returns the payment captured, declined, or still pending under its next key."""
        provider = self._provider
        match await _ask(payment.key, _charge_request(payment), provider.charge, provider.look_up_charge):
            case ChargeCaptured(reference, amount, currency, at):
                return payment.captured(
                    provider=provider.name, reference=reference, amount=amount, currency=currency, at=at
                )
            case ChargeDeclined(code, message):
                return payment.declined(code=code, message=message)
            case KeyVoid():
                return payment.under_next_key()

    async def settle(self, tx: Transaction, performed: Sequence[tuple[Payment, Payment]]) -> None:
        """Writes the outcomes. Emits an event for each payment that this call has settled."""
        settled = [payment for _, payment in performed if payment.state != "pending"]
        if settled:
            changed = await repository.settle_payments(tx, settled)
            tx.emit(*(payment.announcement() for payment in changed))
        renewed = [payment for _, payment in performed if payment.state == "pending"]
        if renewed:
            await repository.renew_payment_keys(tx, renewed)


class Refunding:
    """Makes pending refunds."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def perform(self, refund: Refund) -> Refund:
        """Returns the refund made, or under its next key: pending, or dead if it is not tried again.

        Raises AnotherProvider. After some tries such a refund is dead; an operator can replay it once billing
        is set up with that provider.
        """
        provider, holder = self._provider, refund.undeliverable.payment.provider
        if holder != provider.name:
            raise AnotherProvider(f"{holder} has the money; billing is set up with {provider.name}.")
        match await _ask(refund.key, _refund_request(refund), provider.refund, provider.look_up_refund):
            case RefundSucceeded(reference, amount, at):
                return refund.refunded(reference=reference, amount=amount, at=at)
            case RefundFailed(reason, final):
                logger.warning(
                    "refund %s of order %s failed: %s", refund.id, refund.undeliverable.order.id, reason
                )
                return refund.failed(reason, final=final)
            case KeyVoid():
                return refund.under_next_key()

    async def settle(self, tx: Transaction, performed: Sequence[tuple[Refund, Refund]]) -> None:
        """Writes the outcomes. Emits an event for each refund that this call has settled."""
        made = [refund for _, refund in performed if refund.state == "refunded"]
        if made:
            changed = await repository.settle_refunds(tx, made)
            tx.emit(*(refund.announcement() for refund in changed))
        renewed = [refund for _, refund in performed if refund.state != "refunded"]
        if renewed:
            await repository.renew_refund_keys(tx, renewed)


def runner_of_payments(
    provider: Provider, transactions: Transactions, *, concurrency: int, sweep_seconds: float = 5.0
) -> Runner[Payment, Payment]:
    """The runner that charges pending payments, at most `concurrency` at a time."""
    work = Charging(provider)
    return Runner(
        "billing payments",
        repository.PENDING_PAYMENTS,
        transactions,
        work.perform,
        work.settle,
        policy=RETRIES,
        delayed=delays.for_stage(journey.PAYMENT, lambda payment: payment.invoiced.order),
        concurrency=concurrency,
        sweep_seconds=sweep_seconds,
    )


def runner_of_refunds(
    provider: Provider, transactions: Transactions, *, concurrency: int, sweep_seconds: float = 5.0
) -> Runner[Refund, Refund]:
    """The runner that makes pending refunds, at most `concurrency` at a time."""
    work = Refunding(provider)
    return Runner(
        "billing refunds",
        repository.PENDING_REFUNDS,
        transactions,
        work.perform,
        work.settle,
        policy=RETRIES,
        delayed=delays.for_stage(journey.REFUND, lambda refund: refund.undeliverable.order),
        concurrency=concurrency,
        sweep_seconds=sweep_seconds,
    )


async def _ask(
    key: IdempotencyKey,
    request: RequestT,
    make: Callable[[RequestT], Awaitable[AnswerT]],
    look_up: Callable[[RequestT], Awaitable[AnswerT]],
) -> AnswerT:
    """Makes the request while the provider surely remembers its key, and looks up its outcome after a day.

    Raises NotAsked in the hour between.
    """
    if key.is_usable:
        return await make(request)
    if key.must_be_looked_up:
        return await look_up(request)
    raise NotAsked(
        "The provider may forget the key soon. The outcome is looked up an hour after its last use."
    )


def _charge_request(payment: Payment) -> ChargeRequest:
    """The request for the payment: the same each time, in the form that the payment was begun with."""
    order = payment.invoiced.order
    request = ChargeRequest(
        key=str(payment.key),
        payment_id=payment.id,
        order_id=order.id,
        amount=order.total,
        currency=order.currency,
        payment_method=payment.payment_method,
        order_reference=order.reference,
        key_hash=order.key_hash,
    )
    if payment.form == 1:
        return request
    recipient = Recipient(order.recipient, order.shipping_address, order.customer.phone)
    return replace(request, description=f"Order {order.reference or order.id}", recipient=recipient)


def _refund_request(refund: Refund) -> RefundRequest:
    was = refund.undeliverable
    return RefundRequest(
        key=str(refund.key),
        refund_id=refund.id,
        order_id=was.order.id,
        charge_reference=was.payment.provider_reference,
        amount=was.payment.amount,
        currency=was.order.currency,
    )
