"""The invoice service as a process: `python -m services.invoice.main`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from chassis.service import Assembly, Service
from events.transactions import Transactions
from services.invoice.api import routes
from services.invoice.handlers import HANDLERS, handlers_for
from services.invoice.settings import InvoiceSettings


@asynccontextmanager
async def assemble(settings: InvoiceSettings, transactions: Transactions) -> AsyncIterator[Assembly]:
    """Handlers that issue the invoices of the settings' seller, and an API; no work outside."""
    yield Assembly(handlers=handlers_for(settings.seller), router=routes(transactions))


SERVICE: Final = Service("invoice", HANDLERS, InvoiceSettings, assemble)

if __name__ == "__main__":
    from chassis.process import serve  # only a process of its own needs a broker's client and a web server

    serve(SERVICE)
