"""Charging: asks the provider for each pending payment, and announces what came of it, once."""

from collections.abc import Sequence
from typing import Final

from events import delays, journey
from events.errors import Postponed
from events.retry import RetryPolicy
from events.runner import Runner
from events.transaction import Transaction
from events.transactions import Transactions
from services.billing import repository
from services.billing.domain import Payment
from services.billing.provider import Captured, Charge, NothingDone, Provider, Refused

CHARGE: Final = RetryPolicy(deadline=10, first=1, longest=30)


class Charging:
    """What the runner of payments does with one, and with the outcomes of many."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def perform(self, payment: Payment) -> Payment:
        """The payment as the provider's definite answer leaves it: settled, or pending under its next key."""
        charge = _charge_for(payment)
        if payment.key.is_live:
            answer = await self._provider.charge(charge)
        elif payment.key.is_over:
            answer = await self._provider.look_up(charge)
        else:
            raise Postponed("The key may be forgotten soon: it is looked up when its last use is settled.")
        match answer:
            case Captured(reference, amount, currency, at):
                return payment.captured(
                    provider=self._provider.name, reference=reference, amount=amount, currency=currency, at=at
                )
            case Refused(code, message):
                return payment.declined(code=code, message=message)
            case NothingDone():
                return payment.under_next_key()

    async def settle(self, tx: Transaction, performed: Sequence[tuple[Payment, Payment]]) -> None:
        """Writes the outcomes and announces those of payments that nobody else settled meanwhile."""
        settled = [payment for _, payment in performed if payment.state != "pending"]
        if settled:
            changed = await repository.settle_payments(tx, settled)
            tx.emit(*(payment.announcement() for payment in changed))
        renewed = [payment for _, payment in performed if payment.state == "pending"]
        if renewed:
            await repository.renew_payment_keys(tx, renewed)


def runner(
    provider: Provider, transactions: Transactions, *, concurrency: int, sweep_seconds: float = 5.0
) -> Runner[Payment, Payment]:
    """The runner that collects pending payments, at most `concurrency` at a time."""
    charging = Charging(provider)
    return Runner(
        "billing payments",
        repository.PENDING_PAYMENTS,
        transactions,
        charging.perform,
        charging.settle,
        policy=CHARGE,
        delayed=delays.for_stage(journey.PAYMENT, lambda payment: payment.invoiced.order),
        concurrency=concurrency,
        sweep_seconds=sweep_seconds,
    )


def _charge_for(payment: Payment) -> Charge:
    order = payment.invoiced.order
    return Charge(
        key=str(payment.key),
        payment_id=payment.id,
        order_id=order.id,
        amount=order.total,
        currency=order.currency,
        payment_method=order.payment_method,
        order_reference=order.reference,
        key_hash=order.key_hash,
    )
