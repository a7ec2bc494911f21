"""The invoice service: issues the invoice, with a gapless number."""

from functools import partial
from typing import Final

from bench.peers import business
from bench.peers.aio_pika_asyncpg import service
from bench.peers.aio_pika_asyncpg.service import Service
from bench.peers.business import InvoiceCreated, Invoiced, OrderCreated

_NEXT_NUMBER: Final = """
    INSERT INTO invoice_counters AS counter (year, last) VALUES ($1, 1)
    ON CONFLICT (year) DO UPDATE SET last = counter.last + 1
    RETURNING last
"""


async def issue_invoice(event: OrderCreated, service: Service) -> None:
    """Issues the invoice of a new order."""
    order = event.data.order
    async with service.once(event) as tx:
        year = order.created_at.year
        count = await tx.connection.fetchval(_NEXT_NUMBER, year)
        invoice = business.Invoice(number=business.invoice_number(year, count))
        await tx.connection.execute(
            "INSERT INTO invoices (order_id, number, total, issued_at, snapshot) VALUES ($1, $2, $3, $4, $5)",
            order.id,
            invoice.number,
            order.total,
            invoice.issued_at,
            order.model_dump_json(),
        )
        await tx.announce(InvoiceCreated(subject=order.id, data=Invoiced(order=order, invoice=invoice)))


run: Final = partial(service.run, "invoice", issue_invoice)
