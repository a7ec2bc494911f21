"""Billing's event handlers: they write pending payments and refunds. `work` then asks the provider."""

from collections.abc import Sequence
from typing import Final

from events.contracts import InvoiceCreated, ShipmentError, Undeliverable
from events.errors import Reject
from events.transaction import Transaction
from events.worker import Handlers
from services.billing import recovered_charges, repository
from services.billing.domain import Payment, Refund
from services.billing.repository import CapturedPayment


class NothingToRefund(Reject):
    """The order has no captured payment, so there is nothing to refund."""


class AnotherPayment(Reject):
    """The event names another payment than the one that was captured for the order."""


async def start_payments(invoices: Sequence[InvoiceCreated], tx: Transaction) -> None:
    """Adds a pending payment for each invoiced order that has none yet.

    If a charge from before a database restore pays for the order, the payment is captured at once.
    """
    payments = await repository.add_payments(tx, [Payment.due_for(invoice.data) for invoice in invoices])
    recovered = await recovered_charges.any_unassigned(tx)
    paid = await recovered_charges.assign_to(tx, payments) if recovered else []
    if paid:
        tx.emit(*(payment.announcement() for payment in await repository.settle_payments(tx, paid)))
    settled = {payment.id for payment in paid}
    tx.intend(*(payment for payment in payments if payment.id not in settled))


async def start_refunds(errors: Sequence[ShipmentError], tx: Transaction) -> None:
    """Adds a pending refund for each undeliverable order that has none yet.

    Raises NothingToRefund or AnotherPayment: only the payment that was captured for the order is refunded.
    """
    captured = await repository.captured_payments(tx, {error.subject for error in errors})
    for error in errors:
        _check(error.data, captured.get(error.subject))
    tx.intend(*await repository.add_refunds(tx, [Refund.due_for(error.data) for error in errors]))


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
