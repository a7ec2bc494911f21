"""The shipment service: books the parcel with the simulated carrier."""

from functools import partial
from typing import Final

from bench.peers import business
from bench.peers.aio_pika_asyncpg import service
from bench.peers.aio_pika_asyncpg.service import Service
from bench.peers.business import Dispatched, PaymentConfirmed, Shipped


async def book_parcel(event: PaymentConfirmed, service: Service) -> None:
    """Books the parcel of a paid order."""
    paid = event.data
    shipment = business.shipment_of(paid.order)
    async with service.once(event) as tx:
        await tx.connection.execute(
            "INSERT INTO shipments (id, order_id, carrier, tracking_number, booked_at)"
            " VALUES ($1, $2, $3, $4, $5)",
            shipment.id,
            paid.order.id,
            shipment.carrier,
            shipment.tracking_number,
            shipment.booked_at,
        )
        dispatched = Dispatched(
            order=paid.order, invoice=paid.invoice, payment=paid.payment, shipment=shipment
        )
        await tx.announce(Shipped(subject=paid.order.id, data=dispatched))


run: Final = partial(service.run, "shipment", book_parcel)
