"""The invoice service: issues the invoice, with a gapless number."""

from typing import Annotated

from faststream import Depends
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from bench.peers import business, models
from bench.peers.business import InvoiceCreated, Invoiced, OrderCreated
from bench.peers.faststream_sqlalchemy.database import get_session
from bench.peers.faststream_sqlalchemy.messaging import EXCHANGES, QUEUES
from bench.peers.faststream_sqlalchemy.worker import broker, run

__all__ = ["run"]


@broker.subscriber(QUEUES["invoice"])
@broker.publisher(exchange=EXCHANGES["INVOICE_CREATED"], persist=True)
async def issue_invoice(
    event: OrderCreated, session: Annotated[AsyncSession, Depends(get_session)]
) -> InvoiceCreated:
    """Issues the invoice of a new order."""
    order = event.data.order
    year = order.created_at.year
    count = await session.scalar(
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
    await session.commit()
    return InvoiceCreated(subject=order.id, data=Invoiced(order=order, invoice=invoice))
