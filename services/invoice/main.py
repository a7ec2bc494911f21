"""The invoice service as a process: `python -m services.invoice.main`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from chassis.service import Assembly, Service
from chassis.settings import ServiceSettings
from events.transactions import Transactions
from services.invoice.api import routes
from services.invoice.handlers import HANDLERS


@asynccontextmanager
async def assemble(_: ServiceSettings, transactions: Transactions) -> AsyncIterator[Assembly]:
    """An API, and no work outside."""
    yield Assembly(router=routes(transactions))


SERVICE: Final = Service("invoice", HANDLERS, ServiceSettings, assemble)

if __name__ == "__main__":
    from chassis.process import serve  # only a process of its own needs a broker's client and a web server

    serve(SERVICE)
