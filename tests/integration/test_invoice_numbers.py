"""Invoice numbers have no gaps, however the transactions that take them end."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import date

import asyncpg
import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from chassis import database
from events.contracts import InvoiceCreated, Order, OrderCreated, Seller
from events.envelope import decode, messages
from events.errors import DatabaseUnavailable
from events.participant import Participant
from events.transactions import Transactions
from services.invoice import repository
from services.invoice.domain import EXAMPLE_SELLER, Invoice, Number
from services.invoice.handlers import HANDLERS, issue_invoices
from tests.factories import a_seller, an_order, order_created
from tests.pages import ROOT
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


async def issue(transactions: Transactions, *orders: Order, seller: Seller = EXAMPLE_SELLER) -> list[Invoice]:
    async with transactions() as tx:
        return await repository.issue(tx, orders, seller)


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
            await repository.issue(tx, some, EXAMPLE_SELLER)
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
        """Replaces the role's clock."""
        for statement in (
            "CREATE TABLE invoice.clock (shown timestamptz)",
            "INSERT INTO invoice.clock VALUES (now())",
            """
            CREATE FUNCTION invoice.clock_timestamp() RETURNS timestamptz VOLATILE SECURITY DEFINER
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


async def test_each_year_counts_from_one_and_the_year_of_a_seller_in_utc_is_that_of_utc(
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
            [last] = await repository.issue(holder, [an_order()], EXAMPLE_SELLER)
            waiting = asyncio.create_task(issue(invoices, an_order()))
            while not await holder.fetch("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
                await asyncio.sleep(0.01)
            await clock.show("2027-01-01 00:00:01+00")
        [first] = await waiting
    assert (str(last.number), str(first.number)) == ("2026-000001", "2027-000001")
    assert first.issued_at.isoformat() == "2027-01-01T00:00:01+00:00"


AUCKLAND = a_seller(time_zone="Pacific/Auckland")
SAO_PAULO = a_seller(time_zone="America/Sao_Paulo")


async def test_year_and_day_are_those_of_the_sellers_calendar(clock: Clock, invoices: Transactions) -> None:
    await clock.show("2026-12-31 23:30:00+00")
    [new] = await issue(invoices, an_order(), seller=AUCKLAND)
    assert (str(new.number), new.issued_on) == ("2027-000001", date(2027, 1, 1))
    await clock.show("2027-01-01 01:00:00+00")
    [old] = await issue(invoices, an_order(), seller=SAO_PAULO)
    assert (str(old.number), old.issued_on) == ("2026-000001", date(2026, 12, 31))


async def test_numbers_have_no_gap_over_the_sellers_new_year(clock: Clock, invoices: Transactions) -> None:
    numbers: list[str] = []
    for minute in range(50, 70):
        await clock.show(f"2026-12-31 {10 + minute // 60}:{minute % 60:02}:00+00")  # 11:00 is midnight there
        for some in ([an_order()], [an_order(), an_order()]):
            numbers += [str(i.number) for i in await issue(invoices, *some, seller=AUCKLAND)]
            with suppress(RolledBack):
                async with invoices() as tx:
                    await repository.issue(tx, [an_order()], AUCKLAND)
                    raise RolledBack
    assert numbers == [f"{year}-{serial:06}" for year in (2026, 2027) for serial in range(1, 31)]


async def test_a_seller_that_moves_to_another_time_zone_keeps_each_years_numbers_unique_and_without_gap(
    clock: Clock, invoices: Transactions
) -> None:
    await clock.show("2027-01-01 01:00:00+00")
    numbers = [
        str(invoice.number)
        for seller in (SAO_PAULO, EXAMPLE_SELLER, AUCKLAND, SAO_PAULO, EXAMPLE_SELLER)
        for invoice in await issue(invoices, an_order(), seller=seller)
    ]
    assert numbers == ["2026-000001", "2027-000001", "2027-000002", "2026-000002", "2027-000003"]


async def test_after_the_999999th_of_a_year_it_keeps_counting(clock: Clock, invoices: Transactions) -> None:
    await clock.show("2026-11-22 12:00:00+00")
    async with invoices() as tx:
        await tx.execute("INSERT INTO invoice_counters (year, last) VALUES (2026, 999998)")
    issued = await issue(invoices, *(an_order() for _ in range(3)))
    assert [str(invoice.number) for invoice in issued] == ["2026-999999", "2026-1000000", "2026-1000001"]


# What is stored


async def test_an_invoice_keeps_the_seller_and_the_day_of_its_issue(
    clock: Clock, invoices: Transactions
) -> None:
    await clock.show("2026-12-31 23:30:00+00")
    [first] = await issue(invoices, an_order(), seller=AUCKLAND)
    [second] = await issue(invoices, an_order(), seller=SAO_PAULO)
    async with invoices() as tx:
        found = await repository.find(tx, first.number), await repository.find(tx, second.number)
    assert found == (first, second)
    assert [(invoice.seller, invoice.issued_on) for invoice in (first, second)] == [
        (AUCKLAND, date(2027, 1, 1)),
        (SAO_PAULO, date(2026, 12, 31)),
    ]


async def test_the_payment_method_is_announced_and_not_stored(invoices: Transactions) -> None:
    placed = order_created(payment_method="pm_card_mastercard")
    async with invoices() as tx:
        await issue_invoices([placed], tx, EXAMPLE_SELLER)
        [created] = tx.events
        [row] = await tx.fetch("SELECT * FROM invoices")
    assert isinstance(created, InvoiceCreated)
    assert created.data.payment_method == "pm_card_mastercard"
    assert b"pm_card" not in b"".join(value for value in row.values() if isinstance(value, bytes))


async def test_an_invoice_of_version_1_is_read_and_its_order_is_not_invoiced_again(
    invoices: Transactions,
) -> None:
    """A process of the previous version still inserts them while this one runs beside it."""
    snapshot = (ROOT / "tests/samples/version_1/rows/invoice.invoices.snapshot.json").read_bytes()
    order = msgspec.json.decode(snapshot, type=Order)
    async with invoices() as tx:
        await tx.execute("INSERT INTO invoice_counters (year, last) VALUES (2026, 1)")
        await tx.execute(
            """INSERT INTO invoices (year, serial, order_id, issued_at, snapshot)
               VALUES (2026, 1, $1, '2026-11-22 23:30:00+00', $2)""",
            order.id,
            snapshot,
        )
    async with invoices() as tx:
        found = await repository.find(tx, Number(2026, 1))
    assert found is not None
    assert (found.order, found.seller, found.issued_on) == (order, None, date(2026, 11, 22))
    assert await issue(invoices, order) == []


# Immutability


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE invoices SET snapshot = '{}'",
        "UPDATE invoices SET issued_at = now() WHERE serial = 1",
        "UPDATE invoices SET seller = NULL",
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
