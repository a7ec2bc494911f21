"""Tables and statements of the invoice service: invoices, the counters of their numbers, lost numbers."""

from collections.abc import Sequence
from datetime import UTC
from typing import Final

import asyncpg
import msgspec
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP, UUID

from events import statements
from events.contracts import Order, Seller
from events.transaction import Reads, Transaction
from services.invoice.domain import Invoice, Number, day_of

METADATA: Final = MetaData()

INVOICES: Final = Table(
    "invoices",
    METADATA,
    Column("year", Integer, primary_key=True, autoincrement=False),
    Column("serial", BigInteger, primary_key=True, autoincrement=False),
    Column("order_id", UUID, nullable=False),
    Column("issued_at", TIMESTAMP(timezone=True), nullable=False),
    Column("snapshot", LargeBinary, nullable=False, comment="the order as it was invoiced, as JSON"),
    Column("issued_on", Date, comment="the day of issue where the seller is; null in version 1"),
    Column("seller", LargeBinary, comment="the seller as of the issue, as JSON; null in version 1"),
    UniqueConstraint("order_id", name="one_invoice_per_order"),
)
"""Append-only: a trigger refuses to change or delete a row."""

COUNTERS: Final = Table(
    "invoice_counters",
    METADATA,
    Column("year", Integer, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False, comment="the highest serial issued"),
)
"""One row per year. The issuing transaction increases it, so a rollback leaves no gap."""

LOST_NUMBERS: Final = Table(
    "lost_numbers",
    METADATA,
    Column("year", Integer, primary_key=True, autoincrement=False),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    Column("recorded_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("first <= last", name="lost_numbers_from_first_to_last"),
)
"""Ranges of numbers that were issued and lost in a restore. No invoice has them or will get them."""

_LOCK_NUMBERS: Final = """
    WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtext('invoice numbers')))
    SELECT clock_timestamp() AS issued_at FROM locked"""
_ISSUE: Final = f"""
    WITH fresh AS MATERIALIZED (
        SELECT row.order_id, row.snapshot, row_number() OVER (ORDER BY row.order_id) AS place
        FROM {statements.rows(INVOICES, ("order_id", "snapshot"))}
        WHERE NOT EXISTS (SELECT FROM invoices AS known WHERE known.order_id = row.order_id)),
    counter AS (
        INSERT INTO invoice_counters AS counter (year, last)
        SELECT extract(year FROM $4::date), count(*) FROM fresh
        HAVING count(*) > 0
        ON CONFLICT (year) DO UPDATE SET last = counter.last + excluded.last
        RETURNING year, last)
    INSERT INTO invoices (year, serial, order_id, issued_at, issued_on, seller, snapshot)
    SELECT counter.year, counter.last - (SELECT count(*) FROM fresh) + fresh.place, fresh.order_id,
        $3, $4, $5, fresh.snapshot
    FROM fresh, counter
    RETURNING year, serial, order_id"""  # noqa: S608
_RECORD_LOST: Final = """
    WITH before AS (SELECT coalesce(max(last), 0) AS last FROM invoice_counters WHERE year = $1),
    counter AS (
        INSERT INTO invoice_counters AS counter (year, last) SELECT $1, $2::bigint FROM before
        WHERE before.last < $2
        ON CONFLICT (year) DO UPDATE SET last = excluded.last WHERE counter.last < excluded.last)
    INSERT INTO lost_numbers (year, first, last) SELECT $1, before.last + 1, $2 FROM before
    WHERE before.last < $2"""
_LAST_OF_YEAR: Final = "SELECT last FROM invoice_counters WHERE year = $1"
_LAST: Final = "SELECT year, last FROM invoice_counters ORDER BY year DESC LIMIT 1"
_FIND: Final = "SELECT issued_at, issued_on, seller, snapshot FROM invoices WHERE year = $1 AND serial = $2"

_encoder = msgspec.json.Encoder()
_order = msgspec.json.Decoder(Order)
_seller = msgspec.json.Decoder(Seller)


async def issue(tx: Transaction, orders: Sequence[Order], seller: Seller) -> list[Invoice]:
    """Issues the seller's invoice for each order that has none, and returns the new invoices by number.

    Takes a lock that is held until the transaction ends and keeps others from issuing: call this last. The
    database's clock gives the time of issue once the lock is held, so within a year later numbers have later
    times, and a transaction that waited over the seller's New Year gets numbers of the new year.
    """
    by_id = {order.id: order for order in orders}
    rows = [(order.id, _encoder.encode(order)) for order in by_id.values()]
    [locked] = await tx.fetch(_LOCK_NUMBERS)
    issued_at = locked["issued_at"]
    issued_on = day_of(issued_at, seller)
    # A second statement, to see invoices that others issued while this one waited for the lock.
    columns = statements.columns_of(rows, 2)
    records = await tx.fetch(_ISSUE, *columns, issued_at, issued_on, _encoder.encode(seller))
    invoices = [
        Invoice(
            number=Number(record["year"], record["serial"]),
            issued_at=issued_at,
            issued_on=issued_on,
            seller=seller,
            order=by_id[record["order_id"]],
        )
        for record in records
    ]
    return sorted(invoices, key=lambda invoice: invoice.number)


async def find(database: Reads, number: Number) -> Invoice | None:
    """The invoice with this number, or None."""
    for record in await database.fetch(_FIND, number.year, number.serial):
        return _invoice(number, record)
    return None


def _invoice(number: Number, record: asyncpg.Record) -> Invoice:
    issued_at = record["issued_at"]
    return Invoice(
        number=number,
        issued_at=issued_at,
        issued_on=record["issued_on"] or issued_at.astimezone(UTC).date(),  # version 1 was dated in UTC
        seller=_seller.decode(record["seller"]) if record["seller"] else None,
        order=_order.decode(record["snapshot"]),
    )


async def last_number(tx: Transaction) -> Number | None:
    """The highest number of the latest year, issued or lost; None before the first."""
    for record in await tx.fetch(_LAST):
        return Number(record["year"], record["last"])
    return None


async def next_number(tx: Transaction, year: int) -> Number:
    """The number that the year's next invoice gets."""
    records = await tx.fetch(_LAST_OF_YEAR, year)
    return Number(year, records[0]["last"] + 1 if records else 1)


async def record_lost_up_to(tx: Transaction, last: Number) -> None:
    """Continues the year's numbers after `last`, and records the unused ones up to it as lost.

    Lost numbers were issued after the backup that a restore brought back. Does nothing if the counter is at
    `last` or beyond. Keeps others from issuing until the transaction ends.
    """
    await tx.execute(_LOCK_NUMBERS)
    await tx.execute(_RECORD_LOST, last.year, last.serial)
