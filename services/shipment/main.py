"""The shipment service as a process: `python -m services.shipment.main`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from chassis.service import Assembly, Service
from events.transactions import Transactions
from services.shipment import handlers
from services.shipment.carrier import SimulatedCarrier
from services.shipment.domain import Shipment
from services.shipment.settings import ShipmentSettings


@asynccontextmanager
async def assemble(settings: ShipmentSettings, transactions: Transactions) -> AsyncIterator[Assembly]:
    """Its runner asks the simulated carrier."""
    carrier = SimulatedCarrier(transactions, settings.origin_country)
    try:
        yield Assembly(runners={Shipment: handlers.runner(carrier, transactions)})
    finally:
        await carrier.drain()


SERVICE: Final = Service("shipment", handlers.HANDLERS, ShipmentSettings, assemble)

if __name__ == "__main__":
    from chassis.process import serve  # only a process of its own needs a broker's client and a web server

    serve(SERVICE)
