"""Refunding: asks the provider for each pending refund, and announces it, once."""

import logging
from collections.abc import Sequence
from typing import Final

from events import delays, journey
from events.errors import Postponed
from events.retry import RetryPolicy
from events.runner import Runner
from events.transaction import Transaction
from events.transactions import Transactions
from services.billing import repository
from services.billing.domain import Refund
from services.billing.provider import NothingDone, NotRepaid, Provider, Repaid, Repayment

logger = logging.getLogger(__name__)

REFUND: Final = RetryPolicy(deadline=10, first=1, longest=30)


class AnotherProvider(Exception):
    """The payment was captured by another provider than the one that billing is set up with."""


class Refunding:
    """What the runner of refunds does with one, and with the outcomes of many."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def perform(self, refund: Refund) -> Refund:
        """The refund as the provider's definite answer leaves it: made, or under its next key.

        Raises AnotherProvider: it is set aside after a while, until billing runs with that provider.
        """
        holder = refund.undeliverable.payment.provider
        if holder != self._provider.name:
            raise AnotherProvider(f"{holder} has the money; billing is set up with {self._provider.name}.")
        repayment = _repayment_for(refund)
        if refund.key.is_live:
            answer = await self._provider.repay(repayment)
        elif refund.key.is_over:
            answer = await self._provider.look_up_repayment(repayment)
        else:
            raise Postponed("The key may be forgotten soon: it is looked up when its last use is settled.")
        match answer:
            case Repaid(reference, amount, at):
                return refund.refunded(reference=reference, amount=amount, at=at)
            case NotRepaid(reason, final):
                logger.warning("refund %s of order %s: %s", refund.id, repayment.order_id, reason)
                return refund.failed(reason, final=final)
            case NothingDone():
                return refund.under_next_key()

    async def settle(self, tx: Transaction, performed: Sequence[tuple[Refund, Refund]]) -> None:
        """Writes the outcomes and announces those of refunds that nobody else settled meanwhile."""
        made = [refund for _, refund in performed if refund.state == "refunded"]
        if made:
            changed = await repository.settle_refunds(tx, made)
            tx.emit(*(refund.announcement() for refund in changed))
        renewed = [refund for _, refund in performed if refund.state != "refunded"]
        if renewed:
            await repository.renew_refund_keys(tx, renewed)


def runner(
    provider: Provider, transactions: Transactions, *, concurrency: int, sweep_seconds: float = 5.0
) -> Runner[Refund, Refund]:
    """The runner that makes pending refunds, at most `concurrency` at a time."""
    refunding = Refunding(provider)
    return Runner(
        "billing refunds",
        repository.PENDING_REFUNDS,
        transactions,
        refunding.perform,
        refunding.settle,
        policy=REFUND,
        delayed=delays.for_stage(journey.REFUND, lambda refund: refund.undeliverable.order),
        concurrency=concurrency,
        sweep_seconds=sweep_seconds,
    )


def _repayment_for(refund: Refund) -> Repayment:
    was = refund.undeliverable
    return Repayment(
        key=str(refund.key),
        refund_id=refund.id,
        order_id=was.order.id,
        charge_reference=was.payment.provider_reference,
        amount=was.payment.amount,
        currency=was.order.currency,
    )
