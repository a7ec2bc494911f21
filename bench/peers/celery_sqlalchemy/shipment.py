"""The shipment service: books the parcel with the simulated carrier."""

from functools import partial
from typing import Final

from bench.peers import business, models
from bench.peers.business import Dispatched, PaymentConfirmed, Shipped
from bench.peers.celery_sqlalchemy.app import app, publish, work
from bench.peers.celery_sqlalchemy.database import sessions


@app.task(name="shipment.book_parcel", pydantic=True)
def book_parcel(event: PaymentConfirmed) -> None:
    """Books the parcel of a paid order."""
    paid = event.data
    shipment = business.shipment_of(paid.order)
    with sessions.begin() as session:
        session.add(
            models.Shipment(
                id=shipment.id,
                order_id=paid.order.id,
                carrier=shipment.carrier,
                tracking_number=shipment.tracking_number,
                booked_at=shipment.booked_at,
            )
        )
    dispatched = Dispatched(order=paid.order, invoice=paid.invoice, payment=paid.payment, shipment=shipment)
    publish(Shipped(subject=paid.order.id, data=dispatched))


run: Final = partial(work, "shipment")
