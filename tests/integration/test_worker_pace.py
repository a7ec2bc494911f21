"""When the worker handles arriving events at once, and when it waits for more."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from events import envelope, worker
from events.contracts import OrderCreated
from events.transaction import Transaction
from events.transactions import Transactions
from events.worker import MANY_EVENTS, Worker
from tests.factories import order_created
from tests.waiting import patient_bus

HANG_SECONDS = 30.0
FOR_EVER = 3600.0


class Pace:
    """A running worker, and the number of events in each of its transactions."""

    def __init__(self, transactions: Transactions) -> None:
        self.bus = patient_bus({"invoice": ["ORDER_CREATED"]})
        self.handled: list[int] = []
        self.worker = Worker("invoice", {OrderCreated: self._handle}, transactions, self.bus)
        self._transactions = transactions

    async def _handle(self, events: Sequence[OrderCreated], tx: Transaction) -> None:
        self.handled.append(len(events))

    @asynccontextmanager
    async def working(self, *, holds_back: bool) -> AsyncIterator[None]:
        """It works while the context is open, and ends at once when asked to."""
        async with self.bus.subscribe("invoice", ["ORDER_CREATED"]) as subscription:
            working = asyncio.create_task(self.worker.consume(subscription, holds_back=holds_back))
            async with asyncio.timeout(HANG_SECONDS):
                yield
                self.worker.stop()
                await working

    async def publish(self, events: int) -> None:
        """One message; returns when it was handled."""
        [message] = envelope.messages([order_created() for _ in range(events)])
        await self.bus.publish(message)

    async def some_time(self) -> None:
        """As long as the worker would need for some transactions."""
        for _ in range(10):
            async with self._transactions() as tx:
                await tx.execute("SELECT 1")


@pytest.fixture
def pace(transactions: Transactions, monkeypatch: pytest.MonkeyPatch) -> Pace:
    monkeypatch.setattr(worker, "GATHER_SECONDS", FOR_EVER)
    return Pace(transactions)


async def test_after_many_events_others_gather_and_a_stop_does_not_wait_for_them(pace: Pace) -> None:
    async with pace.working(holds_back=True):
        await pace.publish(MANY_EVENTS)
        publishing = asyncio.create_task(pace.publish(1))
        await pace.some_time()
        assert pace.handled == [MANY_EVENTS]
    publishing.cancel()


async def test_after_few_events_the_next_is_taken_at_once(pace: Pace) -> None:
    async with pace.working(holds_back=True):
        await pace.publish(MANY_EVENTS - 1)
        await pace.publish(1)
    assert pace.handled == [MANY_EVENTS - 1, 1]


async def test_whoever_has_little_time_takes_everything_at_once(pace: Pace) -> None:
    async with pace.working(holds_back=False):
        await pace.publish(MANY_EVENTS)
        await pace.publish(1)
    assert pace.handled == [MANY_EVENTS, 1]
