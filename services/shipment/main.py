"""Shipment as a process: `python -m services.shipment.main`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from chassis.service import Assembly, Service
from events.transactions import Transactions
from services.shipment import simulated, work
from services.shipment.domain import Shipment
from services.shipment.handlers import HANDLERS
from services.shipment.settings import ShipmentSettings


@asynccontextmanager
async def assemble(settings: ShipmentSettings, transactions: Transactions) -> AsyncIterator[Assembly]:
    """The carrier, and the runner that asks it."""
    async with simulated.connect(settings.carrier_database_url, settings.origin_country) as carrier:
        yield Assembly(runners={Shipment: work.runner_of_bookings(carrier, transactions)})


SERVICE: Final = Service("shipment", HANDLERS, ShipmentSettings, assemble)

if __name__ == "__main__":
    from chassis.process import serve  # only a process of its own needs a broker's client and a web server

    serve(SERVICE)
