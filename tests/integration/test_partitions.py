"""Partitions of outbox and inbox are made ahead, dropped when no row is needed, and block no work."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from chassis import database
from events import inbox, migrations, outbox
from events.bus import Message
from events.errors import Unavailable
from events.maintenance import AGAIN_SECONDS, Maintenance
from events.partitions import PartitionRenewal, first_id, renew
from events.transactions import Transactions
from tests.conftest import create_tables
from tests.factories import order_created

SUNDAY = datetime(2025, 1, 12, 12, tzinfo=UTC)
"""In the last hours of the week from 2025-01-06 to the 13th, which is long past."""


def day(number: float) -> datetime:
    return SUNDAY + timedelta(days=number)


def an_id(moment: datetime) -> UUID:
    """A UUIDv7 made at this moment."""
    return UUID(int=first_id(moment).int | uuid4().int & (1 << 80) - 1)


async def write_message(
    transactions: Transactions, made: datetime, *, state: str = "published", published: datetime | None = None
) -> UUID:
    """An outbox row whose id was made at that moment."""
    message_id = an_id(made)
    async with transactions() as tx:
        await tx.execute(
            """INSERT INTO outbox (id, type, body, event_ids, order_ids, state, claimed_until, published_at)
               VALUES ($1, 'ORDER_CREATED', '[]', ARRAY[$1::uuid], ARRAY[$1::uuid], $2, now(), $3)""",
            message_id,
            state,
            (published or made) if state == "published" else None,
        )
    return message_id


async def take_over(transactions: Transactions, made: datetime, *, received: datetime | None = None) -> UUID:
    """An inbox row of an event that was made at that moment."""
    event_id = an_id(made)
    async with transactions() as tx:
        await tx.execute("INSERT INTO inbox VALUES ($1, $2)", event_id, received or made)
    return event_id


async def ids(transactions: Transactions) -> set[UUID]:
    """The ids in outbox and inbox."""
    async with transactions() as tx:
        rows = await tx.fetch("SELECT id FROM outbox UNION ALL SELECT event_id FROM inbox")
    return {row["id"] for row in rows}


async def places(transactions: Transactions) -> dict[UUID, str]:
    """The partition of each row."""
    async with transactions() as tx:
        rows = await tx.fetch(
            """SELECT id, tableoid::regclass::text AS place FROM outbox
               UNION ALL SELECT event_id, tableoid::regclass::text FROM inbox"""
        )
    return {row["id"]: row["place"] for row in rows}


async def partitions(transactions: Transactions) -> set[str]:
    async with transactions() as tx:
        rows = await tx.fetch(
            """SELECT inhrelid::regclass::text AS name FROM pg_inherits
               WHERE inhparent IN ('outbox'::regclass, 'inbox'::regclass)"""
        )
    return {row["name"] for row in rows}


# Time travel


async def test_rows_exist_on_day_8_and_are_dropped_after_their_lifetimes(transactions: Transactions) -> None:
    await renew(transactions, day(0))
    old, young = await write_message(transactions, day(0)), await write_message(transactions, day(0.5))
    taken, taken_later = await take_over(transactions, day(0)), await take_over(transactions, day(0.5))

    await renew(transactions, day(8))
    assert await ids(transactions) == {old, young, taken, taken_later}
    await renew(transactions, day(29.9))
    assert await ids(transactions) == {old, young, taken, taken_later}
    await renew(transactions, day(31))  # the first week ended over 30 days ago, the second did not
    assert await ids(transactions) == {young, taken, taken_later}
    await renew(transactions, day(59.9))
    assert await ids(transactions) == {taken, taken_later}
    await renew(transactions, day(61))
    assert await ids(transactions) == {taken_later}
    await renew(transactions, day(400))
    assert await ids(transactions) == set()


async def test_weeks_are_made_three_ahead_under_the_names_that_an_older_version_knows(
    transactions: Transactions,
) -> None:
    await renew(transactions, day(0))
    weeks = ("20250106", "20250113", "20250120", "20250127")
    assert await partitions(transactions) >= {f"{t}_{week}" for t in ("outbox", "inbox") for week in weeks}
    assert not await partitions(transactions) & {"outbox_20250203", "outbox_20241230"}
    assert await renew(transactions, day(0)) == []


async def test_on_day_400_only_the_partitions_needed_then_exist(transactions: Transactions) -> None:
    before = await partitions(transactions)
    for week in range(8):
        await renew(transactions, day(7 * week))
    await renew(transactions, day(400))
    weeks = ("20260216", "20260223", "20260302", "20260309")
    assert await partitions(transactions) - before == {f"{t}_{w}" for t in ("outbox", "inbox") for w in weeks}


@pytest.mark.parametrize("state", ["pending", "dead"])
async def test_a_partition_with_an_unfinished_row_is_never_dropped_and_the_warning_names_it(
    transactions: Transactions, state: str
) -> None:
    await renew(transactions, day(0))
    unfinished = await write_message(transactions, day(0), state=state)
    published = await write_message(transactions, day(0))
    for number in (31, 61, 400):
        steps = await renew(transactions, day(number))
        assert [(step.partition, step.detail) for step in steps if step.act == "held back"] == [
            ("outbox_20250106", f"1 {state}, the first of them {unfinished}")
        ]
        assert await ids(transactions) == {unfinished, published}


async def test_a_row_published_late_is_kept_for_thirty_days_from_then(
    transactions: Transactions,
) -> None:
    await renew(transactions, day(0))
    late = await write_message(transactions, day(0), published=day(40))
    taken_late = await take_over(transactions, day(0), received=day(41))
    await renew(transactions, day(69))
    assert await ids(transactions) == {late, taken_late}
    await renew(transactions, day(71))
    assert await ids(transactions) == {taken_late}
    await renew(transactions, day(100))
    assert await ids(transactions) == {taken_late}
    await renew(transactions, day(102))
    assert await ids(transactions) == set()


async def test_a_partition_that_can_not_be_dropped_is_warned_of_once(
    transactions: Transactions, caplog: pytest.LogCaptureFixture
) -> None:
    """By the database's own clock, by which 2025 is past."""
    await renew(transactions, day(0))
    pending = await write_message(transactions, day(0), state="pending")
    chore = PartitionRenewal()
    for _ in range(2):
        await chore.run(transactions)
    [told] = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "outbox_20250106" in told
    assert f"1 pending, the first of them {pending}" in told


async def test_a_clock_five_weeks_fast_loses_nothing_and_blocks_nothing(transactions: Transactions) -> None:
    await renew(transactions, day(0))
    message = await write_message(transactions, day(35), state="pending")
    published = await write_message(transactions, day(35), published=day(0))
    event = await take_over(transactions, day(35), received=day(0))
    assert set((await places(transactions)).values()) == {"outbox_default", "inbox_default"}
    for number in (8, 16):
        await renew(transactions, day(number))
        async with transactions() as tx:
            assert await inbox.already_registered(tx, [event]) == {event}  # a duplicate changes nothing
            await outbox.LEASES.claim(tx, 10)
    assert await places(transactions) == {
        message: "outbox_20250210",
        published: "outbox_20250210",
        event: "inbox_20250210",
    }
    async with transactions() as tx:
        await outbox.mark_published(tx, [a_message(message)])
    await renew(transactions, day(64))
    assert await ids(transactions) == {message, published, event}


def a_message(message_id: UUID) -> Message:
    return Message(id=message_id, type="ORDER_CREATED", body=b"[]", event_ids=(), order_ids=())


async def test_rows_move_whole_from_the_default_partition_when_their_week_is_made(
    transactions: Transactions,
) -> None:
    rows = [await write_message(transactions, day(0), state=s) for s in ("published", "pending", "dead")]
    elsewhere = await write_message(transactions, day(-35))
    async with transactions() as tx:
        before = await tx.fetch("SELECT * FROM outbox WHERE id = ANY($1) ORDER BY id", rows)
    [step] = [s for s in await renew(transactions, day(0)) if s.detail]
    assert (step.partition, step.detail) == ("outbox_20250106", "3 rows of its week were in outbox_default")
    async with transactions() as tx:
        assert await tx.fetch("SELECT * FROM outbox_20250106 ORDER BY id") == before
    assert (await places(transactions))[elsewhere] == "outbox_default"


async def test_a_process_that_slept_for_over_three_weeks_loses_nothing(transactions: Transactions) -> None:
    """No process made partitions meanwhile, and the events in memory have old ids."""
    await renew(transactions, day(0))
    before = await write_message(transactions, day(10))
    awake = day(10 + 35)
    from_before = await write_message(transactions, day(10), published=awake)
    pending = await write_message(transactions, day(10), state="pending")
    fresh = await write_message(transactions, awake)
    event = await take_over(transactions, awake)
    assert (await places(transactions))[fresh] == "outbox_default"
    await renew(transactions, awake)
    assert await ids(transactions) == {before, from_before, pending, fresh, event}
    assert (await places(transactions))[fresh] == "outbox_20250224"
    assert (await places(transactions))[event] == "inbox_20250224"


# Others at work


@asynccontextmanager
async def reading(url: str) -> "AsyncIterator[asyncpg.Connection[Any]]":
    """A reader that holds one snapshot for as long as the block lasts."""
    connection = await asyncpg.connect(url.replace("+asyncpg", "", 1))
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.fetch("SELECT FROM outbox, inbox")
            yield connection
    finally:
        await connection.close()


@pytest.mark.parametrize("due", [day(0), day(31)], ids=["make", "drop"])
async def test_while_a_reader_holds_its_snapshot_work_continues_and_renewal_is_tried_again_within_a_minute(
    fresh_database: str, transactions: Transactions, due: datetime
) -> None:
    if due == day(31):  # the only step left
        await renew(transactions, day(0))
        await renew(transactions, day(29.9))
    pauses: asyncio.Queue[float] = asyncio.Queue()
    again = asyncio.Event()

    class Due:
        name, every = "partitions", 3600.0
        done = 0

        async def run(self, on: Transactions) -> None:
            await renew(on, due)
            self.done += 1

    async def sleep(seconds: float) -> None:
        await pauses.put(seconds)
        await again.wait()
        again.clear()

    chore = Due()
    async with reading(fresh_database):
        maintaining = asyncio.create_task(
            Maintenance("test", transactions, [chore], sleep=sleep).run(), name="maintenance"
        )
        while pauses.empty():
            await one_batch(transactions, claims=True)
        assert AGAIN_SECONDS[0] <= pauses.get_nowait() <= AGAIN_SECONDS[1]
        assert chore.done == 0
    again.set()
    assert await pauses.get() > AGAIN_SECONDS[1]
    assert chore.done == 1
    maintaining.cancel()


async def one_batch(transactions: Transactions, *, claims: bool = False) -> None:
    """The statements of a worker's transaction. A wait of two seconds for a lock fails it."""
    async with transactions() as tx:
        await tx.execute("SET LOCAL lock_timeout TO '2s'")
        if claims:  # it locks every partition of the outbox, before the inbox
            await outbox.LEASES.claim(tx, 5)
        await inbox.register(tx, [uuid7() for _ in range(20)])
        tx.emit(*[order_created() for _ in range(3)])


async def test_workers_never_meet_a_deadlock_with_the_renewal(transactions: Transactions) -> None:
    for number in (0, 21, 42):
        await renew(transactions, day(number))
    finished = False
    batches = 0

    async def work(*, claims: bool) -> None:
        nonlocal batches
        while not finished:
            await one_batch(transactions, claims=claims)  # raises what it meets
            batches += 1

    async def renew_all() -> None:
        nonlocal finished
        try:
            for number in (8, 50, 100, 150, 200, 400):
                while True:
                    try:
                        await renew(transactions, day(number))
                        break
                    except Unavailable:  # the lock was not available: again
                        await asyncio.sleep(0)
        finally:
            finished = True

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(work(claims=number % 2 == 0))
        group.create_task(renew_all())
    assert batches
    left = {name for name in await partitions(transactions) if name.startswith(("outbox_2025", "inbox_2025"))}
    assert left == set()


async def test_several_processes_renew_at_once(fresh_database: str) -> None:
    await create_tables(fresh_database)
    async with database.connect(fresh_database, pool=8, application="test") as pool:
        transactions = Transactions(pool)

        async def renewed() -> Sequence[Any]:
            while True:
                try:
                    return await renew(transactions, day(0))
                except Unavailable:
                    await asyncio.sleep(0)

        steps = [step for each in await asyncio.gather(*(renewed() for _ in range(4))) for step in each]
        made = {
            name for name in await partitions(transactions) if name.startswith(("outbox_2025", "inbox_2025"))
        }
    assert len(made) == 8
    assert len(steps) == len({step.partition for step in steps})  # no partition is made twice


async def test_partitions_that_an_older_version_made_are_kept(transactions: Transactions) -> None:
    """It makes them under the same names, with CREATE TABLE … PARTITION OF."""
    monday = datetime(2025, 1, 6, tzinfo=UTC)
    bounds = f"('{first_id(monday)}') TO ('{first_id(monday + timedelta(weeks=1))}')"
    async with transactions() as tx:
        await tx.execute(f"CREATE TABLE outbox_20250106 PARTITION OF outbox FOR VALUES FROM {bounds}")
    steps = await renew(transactions, day(0))
    assert {step.act for step in steps} == {"made"}
    assert "outbox_20250106" not in {step.partition for step in steps}
    await renew(transactions, day(31))
    assert "outbox_20250106" not in await partitions(transactions)


async def test_a_partition_is_like_its_table(transactions: Transactions) -> None:
    """Each index of the table has its part in the new partition, so no query reads the whole of it."""
    await renew(transactions, day(0))
    async with transactions() as tx:
        for table in ("outbox", "inbox"):
            [row] = await tx.fetch(
                """SELECT
                    (SELECT count(*) FROM pg_index WHERE indrelid = $1::regclass AND indisvalid) AS whole,
                    (SELECT count(*) FROM pg_index JOIN pg_inherits ON inhrelid = indexrelid
                     WHERE indrelid = $2::regclass) AS part""",
                table,
                f"{table}_20250106",
            )
            assert row["whole"] == row["part"] > 1


# Each promise is checked by a test that fails on a wrong renewal

_LOOKS = "EXECUTE format(in_use, partition_name) INTO act, detail USING present - lifetime;"
_TOO_SOON = "present - lifetime - interval '1 week'"
_published_late = test_a_row_published_late_is_kept_for_thirty_days_from_then
_unfinished = test_a_partition_with_an_unfinished_row_is_never_dropped_and_the_warning_names_it
_lifetimes = test_rows_exist_on_day_8_and_are_dropped_after_their_lifetimes


@pytest.mark.parametrize(
    ("right", "wrong", "promise"),
    [
        pytest.param(_LOOKS, "act := NULL;", _published_late, id="dropped by name, published late"),
        pytest.param(_LOOKS, "act := NULL;", partial(_unfinished, state="pending"), id="dropped by name"),
        pytest.param(
            "state = 'pending'", "false", partial(_unfinished, state="pending"), id="pending rows forgotten"
        ),
        pytest.param("state = 'dead'", "false", partial(_unfinished, state="dead"), id="dead rows forgotten"),
        pytest.param(_TOO_SOON, "present - lifetime", _lifetimes, id="one week too many dropped"),
        pytest.param(
            "'inbox', interval '60 days'", "'inbox', interval '20 days'", _lifetimes, id="inbox kept 20 days"
        ),
    ],
)
async def test_each_mistake_in_the_renewal_breaks_the_promise_named_for_it(
    transactions: Transactions, right: str, wrong: str, promise: Callable[[Transactions], Awaitable[None]]
) -> None:
    [function] = [text for text in migrations._CREATE_4 if "CREATE FUNCTION renew_partitions" in text]
    assert right in function
    async with transactions() as tx:
        await tx.execute(
            function.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION").replace(right, wrong)
        )
    with pytest.raises(AssertionError):
        await promise(transactions)
