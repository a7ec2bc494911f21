"""Transactions on a real PostgreSQL: their promises when all goes well, and when a connection is lost."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

import asyncpg
import pytest

from chassis import database
from events import connection_pool
from events.errors import Aborted, DatabaseUnavailable
from events.transaction import Transaction
from events.transactions import Transactions
from tests.factories import order_created
from tests.faults.proxy import proxy_to
from tests.handovers import RecordedHandover

COUNT = "SELECT count(*) FROM outbox"


async def connections_lost(url: str, application: str) -> int:
    """Ends every connection of the application at the server. Returns how many there were."""
    ended = f"""
        SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
        WHERE application_name = 'orderflow {application}' AND pid <> pg_backend_pid()"""
    connection = database.connect(url, pool=1, application="executioner")
    async with connection as pool, Transactions(pool)() as tx:
        [record] = await tx.fetch(ended)
    return int(record["count"])


async def count(transactions: Transactions) -> int:
    async with transactions() as tx:
        [record] = await tx.fetch(COUNT)
    return int(record["count"])


async def test_emitted_events_are_in_the_outbox_if_and_only_if_the_transaction_committed(
    transactions: Transactions,
) -> None:
    async with transactions() as tx:
        tx.emit(order_created())
    with pytest.raises(ZeroDivisionError):
        async with transactions() as tx:
            tx.emit(order_created())
            await tx.execute("SELECT 1")
            _ = 1 / 0
    assert await count(transactions) == 1


async def test_the_work_of_a_transaction_is_handed_over_only_after_its_commit(
    transactions: Transactions, handover: RecordedHandover
) -> None:
    seen: list[int] = []
    with pytest.raises(asyncpg.UndefinedTableError):
        async with transactions() as tx:
            tx.intend(object())
            await tx.execute("SELECT * FROM nowhere")
    assert handover.transactions == []
    async with transactions() as tx:
        tx.emit(order_created())
        seen.append(len(handover.transactions))
    assert seen == [0]
    assert handover.transactions == [tx]
    assert [message.type for message in tx.messages] == ["ORDER_CREATED"]


async def test_connections_lost_in_the_pool_fail_no_transaction(fresh_database: str) -> None:
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
async def test_a_transient_database_error_means_unavailable(
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
            tx.emit(order_created())

    breaks: dict[str, Callable[[], Awaitable[None]]] = {
        "deadlock": deadlock,
        "connection": connection,
        "read_only": read_only,
    }
    with pytest.raises(DatabaseUnavailable):
        await breaks[broken]()
    assert await count(transactions) == 0


# After an error, COMMIT does not commit


async def test_a_swallowed_error_of_a_statement_fails_the_commit_and_nothing_is_handed_over(
    transactions: Transactions, handover: RecordedHandover
) -> None:
    with pytest.raises(Aborted) as caught:
        async with transactions() as tx:
            await tx.execute("CREATE TABLE written (x int)")
            tx.intend(object())
            with suppress(asyncpg.PostgresError):
                await tx.execute("SELECT 1 / 0")
    assert isinstance(caught.value.__cause__, asyncpg.DivisionByZeroError)
    assert handover.transactions == []
    async with transactions() as tx:
        assert not await tx.fetch("SELECT FROM pg_class WHERE relname = 'written'")


async def test_a_swallowed_outage_is_still_an_outage(transactions: Transactions) -> None:
    with pytest.raises(DatabaseUnavailable, match="not now"):
        async with transactions() as tx:
            with suppress(DatabaseUnavailable):
                await tx.execute("DO $$ BEGIN RAISE 'not now' USING ERRCODE = '40001'; END $$")
    with pytest.raises(DatabaseUnavailable, match="not now"):
        async with transactions() as tx:
            with suppress(DatabaseUnavailable):
                await tx.execute("DO $$ BEGIN RAISE 'not now' USING ERRCODE = '40001'; END $$")
            await tx.execute("SELECT 1")


async def test_an_error_undone_by_a_savepoint_does_not_count(transactions: Transactions) -> None:
    async with transactions() as tx:
        await tx.execute("SAVEPOINT here")
        with suppress(asyncpg.PostgresError):
            await tx.execute("SELECT 1 / 0")
        await tx.execute("ROLLBACK TO here")
        tx.emit(order_created())
    assert await count(transactions) == 1


# Only an error of the driver means that the database is unavailable


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("letter.html"),
        TimeoutError("no answer from the warehouse"),
        BrokenPipeError(),
        ConnectionRefusedError("smtp"),
        asyncpg.InterfaceError("made by the block itself"),
        asyncpg.DeadlockDetectedError("made by the block itself"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_of_the_block_is_raised_unchanged(
    transactions: Transactions, error: Exception
) -> None:
    with pytest.raises(type(error)) as caught:
        async with transactions() as tx:
            await tx.execute("SELECT 1")
            raise error
    assert caught.value is error


async def test_a_timeout_in_the_block_is_not_the_databases(transactions: Transactions) -> None:
    with pytest.raises(TimeoutError):
        async with transactions() as tx, asyncio.timeout(0.05):
            await tx.fetch("SELECT pg_sleep(30)")
    assert await count(transactions) == 0


async def test_a_statement_that_is_wrong_is_not_the_database_being_away(transactions: Transactions) -> None:
    async with transactions() as tx:
        with pytest.raises(asyncpg.DataError):  # the driver's, of the class of its "connection is closed"
            await tx.fetch("SELECT $1::int", "one")
        with pytest.raises(asyncpg.InterfaceError, match="expects 1 argument"):
            await tx.fetch("SELECT $1::int")


async def test_a_statement_that_takes_too_long_for_the_driver_means_unavailable(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "STATEMENT_SECONDS", 0.2)
    async with database.connect(fresh_database, pool=1, application="slow") as pool:
        with pytest.raises(DatabaseUnavailable):
            async with Transactions(pool)() as tx:
                await tx.fetch("SELECT pg_sleep(30)")


async def test_a_pool_without_a_free_connection_means_unavailable(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with database.connect(fresh_database, pool=1, application="full") as pool:
        full = Transactions(pool)
        async with full():
            monkeypatch.setattr(connection_pool, "POOL_SECONDS", 0.05)
            with pytest.raises(DatabaseUnavailable):
                async with full():
                    pytest.fail("there is no second connection")


async def test_a_migration_beside_a_running_process_only_costs_one_try(
    transactions: Transactions,
) -> None:
    """It makes the server's plan of a prepared `SELECT *` out of date."""
    async with transactions() as owner:
        await owner.execute("CREATE TABLE growing (x int)")
    async with transactions() as tx:
        await tx.fetch("SELECT * FROM growing")
    async with transactions() as owner:
        await owner.execute("ALTER TABLE growing ADD COLUMN y int")
    tries = 0
    while True:
        tries += 1
        with suppress(DatabaseUnavailable):
            async with transactions() as tx:
                await tx.fetch("SELECT * FROM growing")
            break
    assert tries == 2


async def test_errors_about_the_server_are_told_apart(transactions: Transactions) -> None:
    for state, server_wide in {"53100": True, "25006": True, "40P01": False, "55P03": False}.items():
        with pytest.raises(DatabaseUnavailable) as caught:
            async with transactions() as tx:
                await tx.execute(f"DO $$ BEGIN RAISE 'so it is' USING ERRCODE = '{state}'; END $$")
        assert caught.value.server_wide is server_wide


# Ping


async def test_a_database_that_is_there_answers_and_one_that_hangs_or_is_away_does_not(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_pool, "ANSWER_SECONDS", 0.2)
    async with proxy_to(fresh_database) as proxy, AsyncExitStack() as stack:
        connection = database.connect(proxy.through(fresh_database), pool=2, application="ping")
        pinged = Transactions(await stack.enter_async_context(connection))
        assert await pinged.ping()
        proxy.silence(also_new=True)
        assert not await pinged.ping()
        proxy.reset_silent()
        monkeypatch.undo()
        assert await pinged.ping()
        await proxy.refuse()
        assert not await pinged.ping()


@pytest.mark.parametrize("lost", ["by the network", "by the pool"])
async def test_a_connection_that_is_lost_while_it_waits_for_an_answer_means_unavailable(
    fresh_database: str, lost: str
) -> None:
    async with proxy_to(fresh_database) as proxy, AsyncExitStack() as stack:
        connection = database.connect(proxy.through(fresh_database), pool=1, application="lost")
        pool = await stack.enter_async_context(connection)
        with pytest.raises(DatabaseUnavailable):
            async with Transactions(pool)() as tx:
                lose = proxy.cut if lost == "by the network" else pool.terminate  # as at its end
                asyncio.get_running_loop().call_soon(lose)
                await tx.fetch("SELECT pg_sleep(30)")
