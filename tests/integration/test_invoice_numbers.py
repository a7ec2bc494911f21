"""Invoice numbers have no gaps, whatever becomes of the transactions that take them."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from chassis import database
from events.commit import Transactions
from events.contracts import InvoiceCreated, Order, OrderCreated
from events.envelope import decode, messages
from events.errors import DatabaseUnavailable
from events.participant import Participant
from services.invoice import repository
from services.invoice.domain import Invoice, Number
from services.invoice.handlers import HANDLERS
from tests.factories import an_order, order_created
from tests.waiting import patient_bus


class RolledBack(Exception):
    """The test wanted this transaction to fail."""


@asynccontextmanager
async def opened(url: str, pool: int = 8) -> AsyncIterator[Transactions]:
    async with database.connect(url, pool=pool, application="test") as connections:
        yield Transactions(connections)


@pytest.fixture
async def invoices(service_url: Callable[[str], Awaitable[str]]) -> AsyncIterator[Transactions]:
    async with opened(await service_url("invoice")) as transactions:
        yield transactions


async def issue(transactions: Transactions, *orders: Order) -> list[Invoice]:
    async with transactions() as tx:
        return await repository.issue(tx, orders)


async def assert_gapless(transactions: Transactions, *, orders: int) -> None:
    """`orders` invoices, one per order, numbered 1 to `orders`, later numbers issued later."""
    async with transactions() as tx:
        [found] = await tx.fetch("""
            SELECT count(*), count(DISTINCT order_id) AS orders, min(serial), max(serial),
                (SELECT last FROM invoice_counters) FROM invoices""")
        assert tuple(found) == (orders, orders, 1, orders, orders)
        times = [
            record["issued_at"] for record in await tx.fetch("SELECT issued_at FROM invoices ORDER BY serial")
        ]
        assert times == sorted(times)


async def test_numbers_of_a_batch_follow_the_order_of_acceptance(invoices: Transactions) -> None:
    orders = [an_order() for _ in range(5)]
    issued = await issue(invoices, *reversed(orders))
    assert [invoice.number.serial for invoice in issued] == [1, 2, 3, 4, 5]
    assert [invoice.order for invoice in issued] == orders


async def test_an_order_is_invoiced_once(invoices: Transactions) -> None:
    order, other = an_order(), an_order()
    [first] = await issue(invoices, order, order)
    assert await issue(invoices, order) == []
    [second] = await issue(invoices, order, other)
    assert (first.number.serial, second.number.serial) == (1, 2)
    await assert_gapless(invoices, orders=2)


async def test_an_order_that_is_invoiced_twice_at_once_gets_one_number(invoices: Transactions) -> None:
    """The second waits for the first, and then sees what it did; also before there is any counter."""
    for _ in range(3):
        shared = an_order()
        await asyncio.gather(*(issue(invoices, shared, an_order()) for _ in range(6)))
    await assert_gapless(invoices, orders=21)


async def test_rollbacks_and_lost_connections_among_concurrent_transactions_leave_no_gap(
    invoices: Transactions,
) -> None:
    chance = random.Random(2026)
    orders = [an_order() for _ in range(60)]

    async def issue_some(some: Sequence[Order], fate: str) -> None:
        async with invoices() as tx:
            await repository.issue(tx, some)
            if fate == "rollback":
                raise RolledBack
            if fate == "lost connection":
                await tx.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    async def customer() -> None:
        for _ in range(25):
            some = chance.sample(orders, chance.randint(1, 6))
            with suppress(RolledBack, DatabaseUnavailable):
                await issue_some(some, chance.choice(["commit", "commit", "rollback", "lost connection"]))

    await asyncio.gather(*(customer() for _ in range(6)))
    await issue(invoices, *orders)
    await assert_gapless(invoices, orders=60)


async def test_two_invoice_services_share_the_work_without_gap_or_duplicate(
    service_url: Callable[[str], Awaitable[str]],
) -> None:
    url = await service_url("invoice")
    bus = patient_bus({"invoice": ["ORDER_CREATED"], "probe": ["INVOICE_CREATED"]})
    created = [order_created() for _ in range(120)]
    again = [OrderCreated.of(event.data) for event in random.Random(7).sample(created, 40)]
    batches = [created[n : n + 3] for n in range(0, len(created), 3)] + [again, created[:50]]

    async with AsyncExitStack() as stack:
        databases = [await stack.enter_async_context(opened(url)) for _ in range(2)]
        running = asyncio.gather(
            *(Participant("invoice", HANDLERS, transactions, bus).run() for transactions in databases)
        )
        published = asyncio.gather(*(bus.publish(m) for batch in batches for m in messages(batch)))
        announced: list[str] = []
        async with asyncio.timeout(60), bus.subscribe("probe", ["INVOICE_CREATED"]) as probe:
            await published
            while len(announced) < len(created):
                deliveries = await probe.take(100)
                for delivery in deliveries:
                    events, _ = decode(delivery.body)
                    announced += [
                        event.data.invoice.number for event in events if isinstance(event, InvoiceCreated)
                    ]
                await probe.acknowledge(deliveries)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await assert_gapless(databases[0], orders=120)
    assert len(announced) == len(set(announced)) == 120


# Years, by a clock that the test sets: a function of the schema's own, found before PostgreSQL's


class Clock:
    """The database's clock, as the invoice service sees it."""

    def __init__(self, owner: AsyncConnection) -> None:
        self._owner = owner

    async def install(self, role: str) -> None:
        """Shows the role a clock of our own."""
        for statement in (
            "CREATE TABLE invoice.clock (shown timestamptz)",
            "INSERT INTO invoice.clock VALUES (now())",
            """
            CREATE FUNCTION invoice.statement_timestamp() RETURNS timestamptz STABLE SECURITY DEFINER
            LANGUAGE sql AS 'SELECT shown FROM invoice.clock'""",
            f'ALTER ROLE "{role}" SET search_path TO invoice, pg_catalog',
        ):
            await self._owner.execute(text(statement))

    async def show(self, moment: str) -> None:
        """Sets it."""
        await self._owner.execute(text(f"UPDATE invoice.clock SET shown = '{moment}'"))


@pytest.fixture
async def clock(fresh_database: str, invoices: Transactions) -> AsyncIterator[Clock]:
    """Installed before the service has opened any connection."""
    engine = create_async_engine(fresh_database, isolation_level="AUTOCOMMIT")
    async with engine.connect() as owner:
        clock = Clock(owner)
        await clock.install(database.role_of(str(engine.url.database), "invoice"))
        yield clock
    await engine.dispose()


async def test_each_year_counts_from_one_and_the_year_is_that_of_utc(
    clock: Clock, invoices: Transactions
) -> None:
    async def next_number() -> str:
        [invoice] = await issue(invoices, an_order())
        return str(invoice.number)

    await clock.show("2026-12-31 23:59:59.9+00")
    assert [await next_number() for _ in range(2)] == ["2026-000001", "2026-000002"]
    await clock.show("2027-01-01 00:30:00+01")  # New Year in Berlin, not in UTC
    assert await next_number() == "2026-000003"
    await clock.show("2027-01-01 00:00:00+00")
    assert [await next_number() for _ in range(2)] == ["2027-000001", "2027-000002"]
    await clock.show("2026-12-31 23:59:59.95+00")  # the clock was set back
    assert await next_number() == "2026-000004"
    await clock.show("2026-12-31 23:00:00-02")  # New Year in UTC, not in Brazil
    assert await next_number() == "2027-000003"


async def test_a_transaction_that_waits_over_new_year_gets_a_number_of_the_new_year(
    clock: Clock, invoices: Transactions
) -> None:
    await clock.show("2026-12-31 23:59:59+00")
    async with asyncio.timeout(10):
        async with invoices() as holder:
            [last] = await repository.issue(holder, [an_order()])
            waiting = asyncio.create_task(issue(invoices, an_order()))
            while not await holder.fetch("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
                await asyncio.sleep(0.01)
            await clock.show("2027-01-01 00:00:01+00")
        [first] = await waiting
    assert (str(last.number), str(first.number)) == ("2026-000001", "2027-000001")
    assert first.issued_at.isoformat() == "2027-01-01T00:00:01+00:00"


async def test_after_the_999999th_of_a_year_it_keeps_counting(clock: Clock, invoices: Transactions) -> None:
    await clock.show("2026-11-22 12:00:00+00")
    async with invoices() as tx:
        await tx.execute("INSERT INTO invoice_counters (year, last) VALUES (2026, 999998)")
    issued = await issue(invoices, *(an_order() for _ in range(3)))
    assert [str(invoice.number) for invoice in issued] == ["2026-999999", "2026-1000000", "2026-1000001"]


# Immutability


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE invoices SET snapshot = '{}'",
        "UPDATE invoices SET issued_at = now() WHERE serial = 1",
        "DELETE FROM invoices",
        "TRUNCATE invoices",
    ],
)
async def test_an_issued_invoice_is_never_changed_or_deleted(invoices: Transactions, change: str) -> None:
    [issued] = await issue(invoices, an_order())
    with pytest.raises(asyncpg.RestrictViolationError, match="never changed or deleted"):
        async with invoices() as tx:
            await tx.execute(change)
    async with invoices() as tx:
        assert await repository.find(tx, issued.number) == issued


async def test_after_a_restore_the_series_goes_on_after_the_last_number_that_was_mailed(
    invoices: Transactions,
) -> None:
    [first] = await issue(invoices, an_order())
    year = first.number.year
    async with invoices() as tx:
        assert await repository.last_number(tx) == first.number
        assert await repository.next_number(tx, year) == Number(year, 2)
        await repository.record_lost_up_to(tx, Number(year, 41))
        await repository.record_lost_up_to(tx, Number(year, 41))
        await repository.record_lost_up_to(tx, Number(year, 7))
        await repository.record_lost_up_to(tx, Number(year + 1, 3))
        lost = await tx.fetch("SELECT year, first, last FROM lost_numbers ORDER BY year")
        assert await repository.last_number(tx) == Number(year + 1, 3)
        assert await repository.next_number(tx, year + 2) == Number(year + 2, 1)
    assert [tuple(row) for row in lost] == [(year, 2, 41), (year + 1, 1, 3)]
    [second] = await issue(invoices, an_order())
    assert second.number == Number(year, 42)
