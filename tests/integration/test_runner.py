"""Runners on a real PostgreSQL."""

import asyncio
from collections.abc import Sequence

import pytest

from chassis import database
from events import outbox, runner
from events.bus import Message
from events.envelope import MAX_EVENTS
from events.errors import Unavailable
from events.performing import Performing
from events.runner import Runner
from events.transaction import Transaction
from events.transactions import Transactions
from tests.conftest import create_tables
from tests.factories import order_created


class LoopWithAnotherClock(asyncio.SelectorEventLoop):
    """As on macOS with uvloop after a sleep: the loop's clock is not `time.monotonic()`."""

    def time(self) -> float:
        return super().time() - 1_000_000


class LoopWhoseClockJumps(asyncio.SelectorEventLoop):
    """The test can put its clock forward at any moment."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


class ClaimedAhead:
    """A relay whose rows are claimed for another hundred seconds."""

    takes_new = True

    def __init__(self, relay: Runner[Message, None]) -> None:
        self._relay = relay

    def offer(self, rows: Sequence[Message], claimed_at: float) -> None:
        self._relay.offer(rows, claimed_at + 100)


def test_rows_are_found_whatever_clock_the_loop_uses(fresh_database: str) -> None:
    async def found() -> None:
        await create_tables(fresh_database)
        async with database.connect(fresh_database, pool=4, application="test") as pool:
            performed = asyncio.Event()

            async def perform(_: Message) -> None:
                performed.set()

            async def settle(tx: Transaction, done: object) -> None:
                await tx.execute("UPDATE outbox SET state = 'published'")

            relay = Runner(
                "relay",
                outbox.LEASES,
                Transactions(pool),
                perform,
                settle,
                policy=outbox.PUBLISH,
                sweep_seconds=0.05,
            )
            running = asyncio.create_task(relay.run())
            await asyncio.sleep(0.2)  # the first sweep finds nothing
            async with Transactions(pool)() as tx:
                tx.emit(order_created())
            async with asyncio.timeout(10):
                await performed.wait()
            relay.stop()
            await running

    with asyncio.Runner(loop_factory=LoopWithAnotherClock) as loop:
        loop.run(found())


def test_work_goes_on_also_when_a_pause_ends_between_two_looks_at_the_clock(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PauseEndsInBetween(Performing[Message, None]):
        """As soon as nothing but the clock can wake the runner, the clock jumps: just after it was read."""

        def start(self) -> None:
            super().start()
            claims = self.claims
            if self.outage.is_on and claims.waiting and len(claims.held) == len(claims.waiting):
                clock.ahead = 60.0

    async def went_on() -> None:
        await create_tables(fresh_database)
        async with database.connect(fresh_database, pool=4, application="test") as pool:
            transactions = Transactions(pool)
            asked: list[Message] = []
            went_on = asyncio.Event()

            async def perform(message: Message) -> None:
                asked.append(message)
                if len(asked) == 1:
                    raise Unavailable("away")
                went_on.set()

            async def settle(tx: Transaction, done: Sequence[tuple[Message, None]]) -> None:
                await outbox.mark_published(tx, [message for message, _ in done])

            monkeypatch.setattr(runner, "Performing", PauseEndsInBetween)
            relay = Runner(
                "relay",
                outbox.LEASES,
                transactions,
                perform,
                settle,
                policy=outbox.PUBLISH,
                concurrency=1,
            )
            transactions.handover.connect("test", ClaimedAhead(relay), {})
            running = asyncio.create_task(relay.run())
            for _ in range(2):
                async with transactions() as tx:
                    tx.emit(order_created())
            async with asyncio.timeout(90):  # 60 of them pass at once
                await went_on.wait()
            relay.stop()
            await running

    clock = LoopWhoseClockJumps()
    with asyncio.Runner(loop_factory=lambda: clock) as loop:
        loop.run(went_on())


async def test_the_work_of_one_transaction_is_taken_whole_or_not_at_all(
    transactions: Transactions,
) -> None:
    """Taken in part, the other rows would wait for their claims to run out while the runner is idle."""
    published: list[Message] = []
    all_published, go_on = asyncio.Event(), asyncio.Event()

    async def perform(message: Message) -> None:
        published.append(message)
        if len(published) == 3:
            all_published.set()
        await go_on.wait()

    async def settle(tx: Transaction, done: Sequence[tuple[Message, None]]) -> None:
        await outbox.mark_published(tx, [message for message, _ in done])

    relay = Runner(
        "relay",
        outbox.LEASES,
        transactions,
        perform,
        settle,
        policy=outbox.PUBLISH,
        memory=1,
        sweep_seconds=3600,
    )
    transactions.handover.connect("test", relay, {})
    running = asyncio.create_task(relay.run())
    await relay.wait_until_idle()
    for _ in range(2):
        async with transactions() as tx:
            tx.emit(*(order_created() for _ in range(2 * MAX_EVENTS + 1)))  # three messages
    async with asyncio.timeout(30):
        await all_published.wait()
    assert not relay.has_room
    go_on.set()
    relay.stop()
    await running
    assert len(published) == 3
