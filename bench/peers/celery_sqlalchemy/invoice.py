"""The invoice service: issues the invoice, with a gapless number."""

from functools import partial
from typing import Final

from sqlalchemy.dialects.postgresql import insert

from bench.peers import business, models
from bench.peers.business import InvoiceCreated, Invoiced, OrderCreated
from bench.peers.celery_sqlalchemy.app import app, publish, work
from bench.peers.celery_sqlalchemy.database import sessions


@app.task(name="invoice.issue_invoice", pydantic=True)
def issue_invoice(event: OrderCreated) -> None:
    """Issues the invoice of a new order."""
    order = event.data.order
    year = order.created_at.year
    with sessions.begin() as session:
        count = session.scalar(
            insert(models.InvoiceCounter)
            .values(year=year, last=1)
            .on_conflict_do_update(index_elements=["year"], set_={"last": models.InvoiceCounter.last + 1})
            .returning(models.InvoiceCounter.last)
        )
        invoice = business.Invoice(number=business.invoice_number(year, count))
        session.add(
            models.Invoice(
                order_id=order.id,
                number=invoice.number,
                total=order.total,
                issued_at=invoice.issued_at,
                snapshot=order.model_dump(mode="json"),
            )
        )
    publish(InvoiceCreated(subject=order.id, data=Invoiced(order=order, invoice=invoice)))


run: Final = partial(work, "invoice")
