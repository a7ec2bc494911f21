"""An optimistic transaction is one statement if its assumptions hold. Otherwise the work is done again."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from uuid import UUID, uuid4

import asyncpg
import pytest

from chassis import database
from events.connection import Connection
from events.errors import Aborted, AssumptionFailed, DatabaseUnavailable
from events.transaction import Transaction
from events.transactions import Transactions
from tests.factories import order_created
from tests.handovers import RecordedHandover

ADD = """
    INSERT INTO attempts (event_id, count) SELECT unnest($1::uuid[]), 0
    ON CONFLICT DO NOTHING RETURNING event_id"""
RAISE = "UPDATE attempts SET count = count + $2 WHERE event_id = ANY($1::uuid[])"
READ = "SELECT event_id, count FROM attempts"


async def add(tx: Transaction, ids: Collection[UUID]) -> set[UUID]:
    return await tx.fetch_keys(ADD, list(ids), expected=ids)


async def rows(transactions: Transactions) -> dict[UUID, int]:
    return {record["event_id"]: record["count"] for record in await transactions.fetch(READ)}


@pytest.fixture
def statements_sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements sent to the database from now on, one round trip each."""
    sent: list[str] = []
    execute, fetch = Connection.execute, Connection.fetch

    async def executed(self: Connection, query: str, *arguments: object, **options: object) -> str:
        sent.append(query)
        return await execute(self, query, *arguments, **options)  # type: ignore[arg-type]

    async def fetched(self: Connection, query: str, *arguments: object) -> "list[asyncpg.Record]":
        sent.append(query)
        return await fetch(self, query, *arguments)

    monkeypatch.setattr(Connection, "execute", executed)
    monkeypatch.setattr(Connection, "fetch", fetched)
    return sent


async def test_writes_and_announcements_are_one_statement(
    transactions: Transactions, statements_sent: list[str]
) -> None:
    old, new = uuid4(), uuid4()
    await transactions.run(lambda tx: add(tx, [old]))
    statements_sent.clear()

    async def work(tx: Transaction) -> set[UUID]:
        added = await add(tx, [new])
        await tx.execute(RAISE, [old], 5)
        tx.emit(order_created())
        return added

    assert await transactions.run(work) == {new}
    assert len(statements_sent) == 1
    assert await rows(transactions) == {old: 5, new: 0}
    assert len(await transactions.fetch("SELECT FROM outbox")) == 1


async def test_if_not_every_row_is_new_the_work_is_done_again_with_the_answers(
    transactions: Transactions, handover: RecordedHandover
) -> None:
    old, new = uuid4(), uuid4()
    await transactions.run(lambda tx: add(tx, [old]))
    handover.transactions.clear()
    done: list[set[UUID]] = []

    async def work(tx: Transaction) -> set[UUID]:
        done.append(await add(tx, [old, new]))
        tx.emit(*(order_created() for _ in done[-1]))
        return done[-1]

    assert await transactions.run(work) == {new}
    assert done == [{old, new}, {new}]
    assert [len(tx.events) for tx in handover.transactions] == [1]
    assert len(await transactions.fetch("SELECT unnest(event_ids) FROM outbox")) == 1


async def test_a_statement_with_a_row_that_is_not_new_changes_nothing_and_says_so(
    transactions: Transactions,
) -> None:
    old, new = uuid4(), uuid4()
    await transactions.run(lambda tx: add(tx, [old]))
    with pytest.raises(AssumptionFailed) as raised:
        async with transactions(optimistic=True) as tx:
            await add(tx, [old, new])
    assert "expected 2 rows, but found 1: INSERT INTO attempts …" in str(raised.value.__cause__)
    assert await rows(transactions) == {old: 0}


async def test_more_rows_than_expected_are_a_wrong_assumption_too(transactions: Transactions) -> None:
    await transactions.run(lambda tx: add(tx, [uuid4()]))

    async def any_there(tx: Transaction) -> bool:
        return bool(await tx.fetch_keys("SELECT event_id FROM attempts LIMIT 1", expected=()))

    assert await transactions.run(any_there)


async def test_an_error_of_a_statement_is_raised_at_its_place_in_the_work(
    transactions: Transactions,
) -> None:
    async def work(tx: Transaction) -> str:
        try:
            await tx.execute("INSERT INTO attempts (event_id, count) VALUES ($1, NULL)", uuid4())
        except asyncpg.NotNullViolationError:
            raise LookupError from None
        return "no error yet"

    with pytest.raises(LookupError):
        await transactions.run(work)
    assert await rows(transactions) == {}


async def test_a_read_sees_what_was_written_before(transactions: Transactions) -> None:
    new = uuid4()

    async def work(tx: Transaction) -> int:
        await add(tx, [new])
        [record] = await tx.fetch(READ)
        await tx.execute(RAISE, [new], 2)
        return int(record["count"])

    assert await transactions.run(work) == 0
    assert await rows(transactions) == {new: 2}


async def test_after_a_read_finds_a_wrong_assumption_the_work_is_done_again_too(
    transactions: Transactions,
) -> None:
    old, new = uuid4(), uuid4()
    await transactions.run(lambda tx: add(tx, [old]))

    async def work(tx: Transaction) -> tuple[set[UUID], int]:
        added = await add(tx, [old, new])
        return added, len(await tx.fetch(READ))

    assert await transactions.run(work) == ({new}, 2)


async def test_an_error_of_the_work_is_raised_and_the_work_is_not_done_again(
    transactions: Transactions,
) -> None:
    calls: list[Transaction] = []

    async def work(tx: Transaction) -> None:
        calls.append(tx)
        await add(tx, [uuid4()])
        raise LookupError

    with pytest.raises(LookupError):
        await transactions.run(work)
    assert len(calls) == 1
    assert await rows(transactions) == {}


async def test_a_cancelled_statement_of_its_own_leaves_no_connection_that_waits(fresh_database: str) -> None:
    async with database.connect(fresh_database, pool=1, application="cancelled") as pool:
        transactions = Transactions(pool)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await transactions.fetch("SELECT pg_sleep(30)")
        async with asyncio.timeout(5):
            assert await transactions.fetch("SELECT 1 AS one")


async def test_of_two_writers_of_one_row_the_second_waits_and_finds_it(
    transactions: Transactions,
) -> None:
    new = uuid4()
    found = await asyncio.gather(*(transactions.run(lambda tx: add(tx, [new])) for _ in range(8)))
    assert sorted(map(len, found)) == [0] * 7 + [1]


async def test_an_error_after_a_wrong_assumption_is_not_raised(
    transactions: Transactions,
) -> None:
    old = uuid4()
    await transactions.run(lambda tx: add(tx, [old]))

    async def work(tx: Transaction) -> str:
        if old in await add(tx, [old]):
            raise LookupError
        return "it was there"

    assert await transactions.run(work) == "it was there"


async def test_work_that_swallows_a_wrong_assumption_is_done_again_too(transactions: Transactions) -> None:
    old, new = uuid4(), uuid4()
    await transactions.run(lambda tx: add(tx, [old]))

    async def work(tx: Transaction) -> set[UUID]:
        added = await add(tx, [old, new])
        with suppress(Exception):
            await tx.fetch(READ)
        await tx.execute(RAISE, list(added), 1)
        return added

    assert await transactions.run(work) == {new}
    assert await rows(transactions) == {old: 0, new: 1}


async def test_a_statement_that_can_not_be_joined_is_sent_at_its_place(transactions: Transactions) -> None:
    new = uuid4()

    async def work(tx: Transaction) -> set[UUID]:
        added = await add(tx, [new])
        with pytest.raises(asyncpg.DivisionByZeroError):
            await tx.execute("SELECT 1 / count(*) FROM attempts WHERE count > 0")
        return added

    with pytest.raises(Aborted):
        await transactions.run(work)
    assert await rows(transactions) == {}


async def test_an_error_of_the_work_is_raised_although_the_writes_before_it_are_in_order(
    transactions: Transactions, statements_sent: list[str]
) -> None:
    async def work(tx: Transaction) -> None:
        await add(tx, [uuid4()])
        raise LookupError

    with pytest.raises(LookupError):
        await transactions.run(work)
    assert statements_sent[0] == "BEGIN"
    assert statements_sent[-1] == "ROLLBACK"


async def test_a_deadlock_or_time_limit_is_no_wrong_assumption(transactions: Transactions) -> None:
    calls: list[Transaction] = []

    async def work(tx: Transaction) -> None:
        calls.append(tx)
        await tx.execute("DELETE FROM attempts")
        await tx.fetch("SELECT set_config('statement_timeout', '50', true)")
        await tx.execute("INSERT INTO attempts SELECT gen_random_uuid(), 0 FROM pg_sleep(5)")

    with pytest.raises(DatabaseUnavailable):
        await transactions.run(work)
    assert len(calls) == 1


@pytest.mark.parametrize("optimistic", [False, True])
async def test_after_a_begin_without_an_answer_nothing_is_written(
    transactions: Transactions, optimistic: bool
) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with transactions(optimistic=optimistic) as tx:
            with suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await tx.fetch(READ)
            await tx.execute(ADD, [uuid4()])
    assert await rows(transactions) == {}


async def test_a_cancelled_optimistic_transaction_leaves_no_connection_that_waits(
    fresh_database: str,
) -> None:
    async with database.connect(fresh_database, pool=1, application="cancelled") as pool:
        transactions = Transactions(pool)
        await transactions.fetch("CREATE TABLE slept (id int)")
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await transactions.run(
                        lambda tx: tx.execute("INSERT INTO slept SELECT 1 FROM pg_sleep(30)")
                    )
        async with asyncio.timeout(5):
            assert await transactions.fetch("SELECT FROM slept") == []
