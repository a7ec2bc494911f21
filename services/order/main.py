"""The order service as a process: `python -m services.order.main`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from chassis.service import Assembly, Service
from chassis.settings import ServiceSettings
from events.commit import Transactions
from services.order.api import routes
from services.order.handlers import HANDLERS
from services.order.intake import Intake


@asynccontextmanager
async def assemble(_: ServiceSettings, transactions: Transactions) -> AsyncIterator[Assembly]:
    """It leaves no work behind; its API takes orders through the intake, which ends what it has begun."""
    intake = Intake(transactions)
    yield Assembly(router=routes(intake, transactions))
    await intake.drain()


SERVICE: Final = Service("order", HANDLERS, ServiceSettings, assemble)

if __name__ == "__main__":
    from chassis.process import serve  # only a process of its own needs a broker's client and a web server

    serve(SERVICE)
