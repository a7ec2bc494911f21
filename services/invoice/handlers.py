"""How the invoice service handles events: it issues an invoice for each new order."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from events.contracts import OrderCreated, Seller
from events.errors import Reject
from events.transaction import Transaction
from events.worker import Handlers
from services.invoice import repository
from services.invoice.domain import EXAMPLE_SELLER, NotInvoiceable, check_invoiceable


class Uninvoiceable(Reject):
    """The order can't be invoiced."""


async def issue_invoices(events: Sequence[OrderCreated], tx: Transaction, seller: Seller) -> None:
    """Issues and announces the seller's invoice for each order that has none.

    Raises Uninvoiceable if an order's amounts do not add up: an issued invoice can't be corrected.
    """
    orders = [event.data.order for event in events]
    try:
        for order in orders:
            check_invoiceable(order)
    except NotInvoiceable as error:
        raise Uninvoiceable(str(error)) from error
    invoices = await repository.issue(tx, orders, seller)
    payment_methods = {event.subject: event.data.payment_method for event in events}
    tx.emit(*(invoice.created(payment_methods[invoice.order.id]) for invoice in invoices))


def handlers_for(seller: Seller) -> Handlers:
    """The handler table of a service that issues this seller's invoices."""
    return {OrderCreated: partial(issue_invoices, seller=seller)}


HANDLERS: Final = handlers_for(EXAMPLE_SELLER)
