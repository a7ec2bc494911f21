"""Runners on a real PostgreSQL."""

import asyncio

from chassis import database
from events import outbox
from events.bus import Message
from events.commit import Transactions
from events.runner import Runner
from events.transaction import Transaction
from tests.conftest import create_tables
from tests.factories import order_created


class LoopWithAnotherClock(asyncio.SelectorEventLoop):
    """As on macOS with uvloop after a sleep: the loop's clock is not `time.monotonic()`."""

    def time(self) -> float:
        return super().time() - 1_000_000


def test_rows_are_found_whatever_clock_the_loop_goes_by(fresh_database: str) -> None:
    async def found() -> None:
        await create_tables(fresh_database)
        async with database.connect(fresh_database, pool=4, application="test") as engine:
            performed = asyncio.Event()

            async def perform(_: Message) -> None:
                performed.set()

            async def settle(tx: Transaction, done: object) -> None:
                await tx.execute("UPDATE outbox SET state = 'published'")

            runner = Runner("relay", outbox.LEASES, Transactions(engine), perform, settle, sweep_seconds=0.05)
            running = asyncio.create_task(runner.run())
            await asyncio.sleep(0.2)  # the first sweep finds nothing
            async with Transactions(engine)() as tx:
                tx.emit(order_created())
            async with asyncio.timeout(10):
                await performed.wait()
            runner.stop()
            await running

    with asyncio.Runner(loop_factory=LoopWithAnotherClock) as loop:
        loop.run(found())
