"""The invoice service as a process: `python -m services.invoice.main`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from chassis.service import Assembly, Service
from chassis.settings import ServiceSettings
from events.transactions import Transactions
from services.invoice import api
from services.invoice.handlers import HANDLERS


@asynccontextmanager
async def assemble(_: ServiceSettings, transactions: Transactions) -> AsyncIterator[Assembly]:
    """It leaves no work behind, and has an API."""
    yield Assembly(router=api.routes(transactions))


SERVICE: Final = Service("invoice", HANDLERS, ServiceSettings, assemble)

if __name__ == "__main__":
    from chassis.process import serve  # only a process of its own needs a broker's client and a web server

    serve(SERVICE)
