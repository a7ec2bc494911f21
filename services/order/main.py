"""The order service as a process: `python -m services.order.main`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from chassis.service import Assembly, Service
from events.transactions import Transactions
from services.order.api import routes
from services.order.handlers import HANDLERS
from services.order.intake import Intake
from services.order.key_cleaner import IdempotencyKeyCleaner
from services.order.settings import OrderSettings


@asynccontextmanager
async def assemble(settings: OrderSettings, transactions: Transactions) -> AsyncIterator[Assembly]:
    """An API that takes orders through the intake, and the idempotency key cleaner; no work outside."""
    intake = Intake(transactions)
    chores = [IdempotencyKeyCleaner(timedelta(days=settings.idempotency_key_days))]
    yield Assembly(chores=chores, router=routes(intake, transactions))
    await intake.drain()


SERVICE: Final = Service("order", HANDLERS, OrderSettings, assemble)

if __name__ == "__main__":
    from chassis.process import serve  # only a process of its own needs a broker's client and a web server

    serve(SERVICE)
