"""A worker takes deliveries only while it runs."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from chassis import database
from events import envelope
from events.contracts import OrderCreated
from events.transaction import Transaction
from events.transactions import Transactions
from events.worker import Worker
from tests.factories import order_created
from tests.waiting import patient_bus


async def handle(events: Sequence[OrderCreated], tx: Transaction) -> None:
    raise AssertionError("it is never given anything")


async def test_a_cancelled_worker_takes_nothing_more() -> None:
    bus = patient_bus({"invoice": ["ORDER_CREATED"]})
    nowhere = "postgresql+asyncpg://nobody@localhost/nothing"
    async with database.connect(nowhere, pool=1, application="test") as pool:
        worker = Worker("invoice", {OrderCreated: handle}, Transactions(pool), bus)
        working = asyncio.create_task(worker.run())
        for _ in range(5):
            await asyncio.sleep(0)  # until it waits
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
    [message] = envelope.messages([order_created()])
    publishing = asyncio.create_task(bus.publish(message))
    async with bus.subscribe("invoice", ["ORDER_CREATED"]) as subscription, asyncio.timeout(5):
        taken = await subscription.take(1)
        await subscription.acknowledge(taken)
        await publishing
