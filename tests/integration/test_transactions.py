"""Transactions on a real PostgreSQL: what they promise when all goes well, and when the connection goes."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from chassis import database
from events.commit import Transactions
from events.contracts import OrderCreated, Placed
from events.errors import DatabaseUnavailable
from events.transaction import Transaction
from tests.factories import an_order

COUNT = "SELECT count(*) FROM outbox"


async def connections_lost(url: str, application: str) -> int:
    """Ends every connection of the application from the server's side; returns how many there were."""
    ended = f"""
        SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
        WHERE application_name = 'orderflow {application}' AND pid <> pg_backend_pid()"""
    connection = database.connect(url, pool=1, application="executioner")
    async with connection as pool, Transactions(pool)() as tx:
        [record] = await tx.fetch(ended)
    return int(record["count"])


def an_event() -> OrderCreated:
    return OrderCreated.of(Placed(order=an_order()))


async def count(transactions: Transactions) -> int:
    async with transactions() as tx:
        [record] = await tx.fetch(COUNT)
    return int(record["count"])


async def test_what_is_emitted_is_in_the_outbox_if_and_only_if_the_transaction_committed(
    transactions: Transactions,
) -> None:
    async with transactions() as tx:
        tx.emit(an_event())
    with pytest.raises(ZeroDivisionError):
        async with transactions() as tx:
            tx.emit(an_event())
            await tx.execute("SELECT 1")
            _ = 1 / 0
    assert await count(transactions) == 1


async def test_what_a_transaction_leaves_behind_is_handed_over_only_after_its_commit(
    transactions: Transactions,
) -> None:
    seen: list[int] = []
    handed_over: list[Transaction] = []
    transactions.committed = handed_over.append
    with pytest.raises(asyncpg.UndefinedTableError):
        async with transactions() as tx:
            tx.intend(object())
            await tx.execute("SELECT * FROM nowhere")
    assert handed_over == []
    async with transactions() as tx:
        tx.emit(an_event())
        seen.append(len(handed_over))
    assert seen == [0]
    assert handed_over == [tx]
    assert [message.type for message in tx.messages] == ["ORDER_CREATED"]


async def test_connections_lost_in_the_pool_fail_nobody(fresh_database: str) -> None:
    async with database.connect(fresh_database, pool=3, application="pooled") as pool:
        pooled = Transactions(pool)

        async def use() -> None:
            async with pooled() as tx:
                await tx.fetch("SELECT pg_sleep(0.05)")

        await asyncio.gather(*(use() for _ in range(3)))
        assert await connections_lost(fresh_database, "pooled") == 3
        await asyncio.gather(*(use() for _ in range(6)))


@pytest.mark.parametrize(
    "setting",
    ["lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"],
)
async def test_a_time_limit_of_the_database_means_unavailable(
    transactions: Transactions, setting: str
) -> None:
    async def hold_and_wait(tx: Transaction) -> None:
        await tx.execute(f"SET LOCAL {setting} = '50ms'")
        async with transactions() as other:
            await other.execute("SELECT pg_advisory_xact_lock(1)")
            if setting == "idle_in_transaction_session_timeout":
                await other.fetch("SELECT pg_sleep(0.3)")
            await tx.fetch("SELECT pg_advisory_xact_lock(1)")

    with pytest.raises(DatabaseUnavailable):
        async with transactions() as tx:
            await hold_and_wait(tx)


@pytest.mark.parametrize("broken", ["deadlock", "connection", "read_only"])
async def test_what_is_nobodys_fault_means_unavailable(
    fresh_database: str, transactions: Transactions, broken: str
) -> None:
    first, second = asyncio.Event(), asyncio.Event()

    async def lock(mine: int, other: int, ready: asyncio.Event, wait: asyncio.Event) -> None:
        async with transactions() as tx:
            await tx.execute(f"SELECT pg_advisory_xact_lock({mine})")
            ready.set()
            await wait.wait()
            await tx.execute(f"SELECT pg_advisory_xact_lock({other})")

    async def deadlock() -> None:
        ended = await asyncio.gather(
            lock(1, 2, first, second), lock(2, 1, second, first), return_exceptions=True
        )
        for error in ended:
            if error:
                raise error

    async def connection() -> None:
        async with transactions() as tx:
            await connections_lost(fresh_database, "test")
            await tx.execute("SELECT 1")

    async def read_only() -> None:
        async with transactions() as tx:
            await tx.execute("SET TRANSACTION READ ONLY")
            tx.emit(an_event())

    breaks: dict[str, Callable[[], Awaitable[None]]] = {
        "deadlock": deadlock,
        "connection": connection,
        "read_only": read_only,
    }
    with pytest.raises(DatabaseUnavailable):
        await breaks[broken]()
    assert await count(transactions) == 0
