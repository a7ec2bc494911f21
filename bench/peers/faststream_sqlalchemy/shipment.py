"""The shipment service: books the parcel with the simulated carrier."""

from typing import Annotated

from faststream import Depends
from sqlalchemy.ext.asyncio import AsyncSession

from bench.peers import business, models
from bench.peers.business import Dispatched, PaymentConfirmed, Shipped
from bench.peers.faststream_sqlalchemy.database import get_session
from bench.peers.faststream_sqlalchemy.messaging import EXCHANGES, QUEUES
from bench.peers.faststream_sqlalchemy.worker import broker, run

__all__ = ["run"]


@broker.subscriber(QUEUES["shipment"])
@broker.publisher(exchange=EXCHANGES["SHIPPED"], persist=True)
async def book_parcel(
    event: PaymentConfirmed, session: Annotated[AsyncSession, Depends(get_session)]
) -> Shipped:
    """Books the parcel of a paid order."""
    paid = event.data
    shipment = business.shipment_of(paid.order)
    session.add(
        models.Shipment(
            id=shipment.id,
            order_id=paid.order.id,
            carrier=shipment.carrier,
            tracking_number=shipment.tracking_number,
            booked_at=shipment.booked_at,
        )
    )
    await session.commit()
    return Shipped(
        subject=paid.order.id,
        data=Dispatched(order=paid.order, invoice=paid.invoice, payment=paid.payment, shipment=shipment),
    )
