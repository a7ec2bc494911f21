"""The invoice API: `GET /invoices/{number}`."""

from typing import Annotated

from fastapi import APIRouter, Path

from chassis.problems import Problem
from events.transactions import Transactions
from services.invoice import repository
from services.invoice.documents import InvoiceDocument
from services.invoice.domain import NotAnInvoiceNumber, Number


def routes(transactions: Transactions) -> APIRouter:
    """The invoice API, reading from this database."""
    router = APIRouter(tags=["invoices"])

    @router.get("/invoices/{number}")
    async def get_invoice(
        number: Annotated[str, Path(description="As in `InvoiceDocument.number`.", examples=["2026-000001"])],
    ) -> InvoiceDocument:
        """An issued invoice. 404 where none has this number."""
        try:
            wanted = Number.parse(number)
        except NotAnInvoiceNumber as error:
            raise _no_such_invoice() from error
        invoice = await repository.find(transactions, wanted)
        if invoice is None:
            raise _no_such_invoice()
        return InvoiceDocument.of(invoice)

    return router


def _no_such_invoice() -> Problem:
    return Problem(404, "no_such_invoice", "There is no invoice with this number.")
