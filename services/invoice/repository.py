"""Invoices as they are stored: issued once, numbered without gaps, never changed."""

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP, UUID

from events import statements
from events.contracts import Order
from events.transaction import Reads, Transaction
from services.invoice.domain import Invoice, Number

METADATA: Final = MetaData()

INVOICES: Final = Table(
    "invoices",
    METADATA,
    Column("year", Integer, primary_key=True, autoincrement=False),
    Column("serial", BigInteger, primary_key=True, autoincrement=False),
    Column("order_id", UUID, nullable=False),
    Column("issued_at", TIMESTAMP(timezone=True), nullable=False),
    Column("snapshot", LargeBinary, nullable=False, comment="the order as it was invoiced, as JSON"),
    UniqueConstraint("order_id", name="one_invoice_per_order"),
)
"""A trigger refuses to change or delete a row."""

COUNTERS: Final = Table(
    "invoice_counters",
    METADATA,
    Column("year", Integer, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False, comment="the highest serial issued"),
)
"""One row per year, counted up in the transaction that issues: a rollback takes its numbers back."""

LOST_NUMBERS: Final = Table(
    "lost_numbers",
    METADATA,
    Column("year", Integer, primary_key=True, autoincrement=False),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    Column("recorded_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("first <= last", name="lost_numbers_from_first_to_last"),
)
"""Ranges of numbers that were issued and lost in a restore: no invoice has them, and none will."""

_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtext('invoice numbers'))"
_ISSUE: Final = f"""
    WITH fresh AS MATERIALIZED (
        SELECT row.order_id, row.snapshot, row_number() OVER (ORDER BY row.order_id) AS place
        FROM {statements.rows(INVOICES, ("order_id", "snapshot"))}
        WHERE NOT EXISTS (SELECT FROM invoices AS known WHERE known.order_id = row.order_id)),
    counter AS (
        INSERT INTO invoice_counters AS counter (year, last)
        SELECT extract(year FROM statement_timestamp() AT TIME ZONE 'UTC'), count(*) FROM fresh
        HAVING count(*) > 0
        ON CONFLICT (year) DO UPDATE SET last = counter.last + excluded.last
        RETURNING year, last)
    INSERT INTO invoices (year, serial, order_id, issued_at, snapshot)
    SELECT counter.year, counter.last - (SELECT count(*) FROM fresh) + fresh.place, fresh.order_id,
        statement_timestamp(), fresh.snapshot
    FROM fresh, counter
    RETURNING year, serial, order_id, issued_at"""  # noqa: S608
_LOSE: Final = """
    WITH before AS (SELECT coalesce(max(last), 0) AS last FROM invoice_counters WHERE year = $1),
    counter AS (
        INSERT INTO invoice_counters AS counter (year, last) SELECT $1, $2::bigint FROM before
        WHERE before.last < $2
        ON CONFLICT (year) DO UPDATE SET last = excluded.last WHERE counter.last < excluded.last)
    INSERT INTO lost_numbers (year, first, last) SELECT $1, before.last + 1, $2 FROM before
    WHERE before.last < $2"""
_LAST_OF_YEAR: Final = "SELECT last FROM invoice_counters WHERE year = $1"
_LAST: Final = "SELECT year, last FROM invoice_counters ORDER BY year DESC LIMIT 1"
_FIND: Final = "SELECT issued_at, snapshot FROM invoices WHERE year = $1 AND serial = $2"

_encoder = msgspec.json.Encoder()
_order = msgspec.json.Decoder(Order)


async def issue(tx: Transaction, orders: Sequence[Order]) -> list[Invoice]:
    """Issues an invoice for each of the orders that has none, and returns these by number.

    The year and the time of issue are the database's, read once the lock is held. So within a year later
    numbers have later times, and whoever waited over New Year gets a number of the new year. From here to
    the end of the transaction nobody else issues: do this last.
    """
    by_id = {order.id: order for order in orders}
    rows = [(order.id, _encoder.encode(order)) for order in by_id.values()]
    await tx.execute(_ONE_AT_A_TIME)
    # A statement of its own: it sees what was issued while the lock was waited for.
    records = await tx.fetch(_ISSUE, *statements.columns_of(rows, 2))
    invoices = [
        Invoice(
            number=Number(record["year"], record["serial"]),
            issued_at=record["issued_at"],
            order=by_id[record["order_id"]],
        )
        for record in records
    ]
    return sorted(invoices, key=lambda invoice: invoice.number)


async def find(database: Reads, number: Number) -> Invoice | None:
    """The invoice with this number, as it was issued."""
    for record in await database.fetch(_FIND, number.year, number.serial):
        return Invoice(number, record["issued_at"], _order.decode(record["snapshot"]))
    return None


async def last_number(tx: Transaction) -> Number | None:
    """The highest number of the newest year, whether its invoice is there or lost."""
    for record in await tx.fetch(_LAST):
        return Number(record["year"], record["last"])
    return None


async def next_number(tx: Transaction, year: int) -> Number:
    """The number that the year's next invoice gets."""
    records = await tx.fetch(_LAST_OF_YEAR, year)
    return Number(year, records[0]["last"] + 1 if records else 1)


async def lose_up_to(tx: Transaction, last: Number) -> None:
    """Lets the series of its year go on after this number, and records those before it as lost.

    They are the numbers that were issued after a backup was made, and lost when it was brought back. A series
    that has come so far stays as it is. From here to the end of the transaction nobody else issues.
    """
    await tx.execute(_ONE_AT_A_TIME)
    await tx.execute(_LOSE, last.year, last.serial)
