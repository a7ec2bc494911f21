"""What billing does about each event: it leaves the charge or the refund behind as an intent."""

from collections.abc import Sequence

from events.contracts import InvoiceCreated, ShipmentError, Undeliverable
from events.errors import Reject
from events.transaction import Transaction
from events.worker import Handlers
from services.billing import recovered, repository
from services.billing.domain import Payment, Refund
from services.billing.repository import CapturedPayment


class NothingToRefund(Reject):
    """The order has no captured payment, so there is nothing to give back."""


class AnotherPayment(Reject):
    """The event names another payment than the one that was captured for its order."""


async def collect_payments(invoices: Sequence[InvoiceCreated], tx: Transaction) -> None:
    """A payment for each invoiced order that has none yet.

    One that a charge has paid which a restored database did not know is captured at once.
    """
    payments = await repository.add_payments(tx, [Payment.due_for(invoice.data) for invoice in invoices])
    paid = await recovered.take(tx, payments) if await recovered.any_kept(tx) else []
    if paid:
        tx.emit(*(payment.announcement() for payment in await repository.settle_payments(tx, paid)))
    settled = {payment.id for payment in paid}
    tx.intend(*(payment for payment in payments if payment.id not in settled))


async def give_back(errors: Sequence[ShipmentError], tx: Transaction) -> None:
    """A refund for each undeliverable order that has none yet.

    Raises NothingToRefund or AnotherPayment: no money moves but what was captured.
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


HANDLERS: Handlers = {
    InvoiceCreated: collect_payments,
    ShipmentError: give_back,
}
