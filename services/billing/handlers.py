"""Billing's event handlers: they write payments and refunds. `work` asks the provider for pending ones."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from events.contracts import InvoiceCreated, ShipmentError, Undeliverable
from events.errors import Reject
from events.transaction import Transaction
from events.worker import Handlers
from services.billing import recovered_charges, repository
from services.billing.domain import FreePayment, Payment, Refund, payment_for
from services.billing.repository import CapturedPayment


class NothingToRefund(Reject):
    """The order has no captured payment, so there is nothing to refund."""


class AnotherPayment(Reject):
    """The event names another payment than the one that was captured for the order."""


async def start_payments(invoices: Sequence[InvoiceCreated], tx: Transaction) -> None:
    """Adds a pending payment for each invoiced order that has none yet.

    The payment is captured at once if the order's total is 0, or if a charge from before a database restore
    pays for the order.
    """
    now = datetime.now(UTC)
    added = await repository.add_payments(tx, [payment_for(invoice.data, now) for invoice in invoices])
    tx.emit(*(payment.announcement() for payment in added if isinstance(payment, FreePayment)))
    due = [payment for payment in added if isinstance(payment, Payment)]
    recovered = await recovered_charges.any_unassigned(tx)
    paid = await recovered_charges.assign_to(tx, due) if recovered else []
    if paid:
        tx.emit(*(payment.announcement() for payment in await repository.settle_payments(tx, paid)))
    settled = {payment.id for payment in paid}
    tx.intend(*(payment for payment in due if payment.id not in settled))


async def start_refunds(errors: Sequence[ShipmentError], tx: Transaction) -> None:
    """Adds a pending refund for each undeliverable order that has none yet.

    The refund of a payment of 0 is made at once.

    Raises NothingToRefund or AnotherPayment: only the payment that was captured for the order is refunded.
    """
    captured = await repository.captured_payments(tx, {error.subject for error in errors})
    for error in errors:
        _check(error.data, captured.get(error.subject))
    now = datetime.now(UTC)
    refunds = await repository.add_refunds(tx, [Refund.due_for(error.data, now) for error in errors])
    tx.emit(*(refund.announcement() for refund in refunds if refund.state == "refunded"))
    tx.intend(*(refund for refund in refunds if refund.state == "pending"))


def _check(undeliverable: Undeliverable, captured: CapturedPayment | None) -> None:
    if captured is None:
        raise NothingToRefund
    named = undeliverable.payment
    if (named.id, named.provider, named.provider_reference, named.amount) != (
        str(captured.id),
        captured.provider,
        captured.provider_reference,
        captured.amount,
    ):
        raise AnotherPayment


HANDLERS: Final[Handlers] = {
    InvoiceCreated: start_payments,
    ShipmentError: start_refunds,
}
