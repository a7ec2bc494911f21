"""The order's tables and statements: orders, their idempotency keys, their timelines and delays."""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import asyncpg
import msgspec
from sqlalchemy import BigInteger, Column, ForeignKey, Index, LargeBinary, MetaData, Table, Text, func
from sqlalchemy.dialects.postgresql import TIMESTAMP, UUID

from events import statements
from events.contracts import Order, OrderCreated
from events.errors import Reject
from events.transaction import Reads, Transaction
from services.order.domain import Entry, Facts

METADATA: Final = MetaData()

ORDERS: Final = Table(
    "orders",
    METADATA,
    Column("id", UUID, primary_key=True),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False),
    Column("reference", Text),
    Column("currency", Text, nullable=False),
    Column("total", BigInteger, nullable=False, comment="in minor units of the currency"),
    Column("snapshot", LargeBinary, nullable=False, comment="the whole order as it was accepted, as JSON"),
)

TIMELINE: Final = Table(
    "timeline",
    METADATA,
    Column("order_id", UUID, ForeignKey("orders.id"), primary_key=True),
    Column("event_id", UUID, primary_key=True),
    Column("type", Text, nullable=False),
    Column("time", TIMESTAMP(timezone=True), nullable=False),
    Column("facts", LargeBinary, nullable=False, comment="what the event knows beyond the order, as JSON"),
)
"""One line per event, also when two events of one type contradict each other: the audit shall see both."""

DELAYS: Final = Table(
    "delays",
    METADATA,
    Column("order_id", UUID, ForeignKey("orders.id"), primary_key=True),
    Column("event_id", UUID, primary_key=True),
    Column("type", Text, nullable=False),
    Column("time", TIMESTAMP(timezone=True), nullable=False),
    Column("facts", LargeBinary, nullable=False, comment="what the order waits for, as JSON"),
)
"""One line per ORDER_DELAYED. They are no milestones, so the timeline does not hold them."""

IDEMPOTENCY_KEYS: Final = Table(
    "idempotency_keys",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False, comment="SHA-256 of what was asked for"),
    Column("order_id", UUID, nullable=False),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    Index("idempotency_keys_by_age", "created_at"),
)
"""Which order a key made."""

_ORDER_COLUMNS: Final = ("id", "created_at", "reference", "currency", "total", "snapshot")
_ENTRY_COLUMNS: Final = ("order_id", "event_id", "type", "time", "facts")
_CLAIM_COLUMNS: Final = ("key", "fingerprint", "order_id")

_ADD: Final = statements.insert(ORDERS, _ORDER_COLUMNS, then="ON CONFLICT DO NOTHING RETURNING id")
_RECORD: Final = statements.insert(TIMELINE, _ENTRY_COLUMNS, then="ON CONFLICT DO NOTHING")
_NOTE: Final = statements.insert(
    DELAYS,
    _ENTRY_COLUMNS,
    then="WHERE EXISTS (SELECT FROM orders WHERE id = row.order_id) ON CONFLICT DO NOTHING",
)
# A key that another process is committing right now would hold up the whole batch: the lock tells beforehand.
_CLAIM: Final = statements.insert(
    IDEMPOTENCY_KEYS,
    _CLAIM_COLUMNS,
    then="""
    WHERE pg_try_advisory_xact_lock(hashtextextended(row.key, 0))
    ON CONFLICT DO NOTHING RETURNING key""",
)
_CLAIMED: Final = "SELECT key, fingerprint, order_id FROM idempotency_keys WHERE key = ANY($1::text[])"
_FORGET: Final = """
    DELETE FROM idempotency_keys WHERE key IN (
        SELECT key FROM idempotency_keys WHERE created_at < now() - $1::interval
        ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)
    RETURNING key"""
_FIND: Final = """
    SELECT orders.id, snapshot, event_id, type, time, facts
    FROM orders JOIN (
        SELECT * FROM timeline WHERE order_id = ANY($1::uuid[])
        UNION ALL SELECT * FROM delays WHERE order_id = ANY($1::uuid[])) AS line ON line.order_id = orders.id
    WHERE orders.id = ANY($1::uuid[])"""

_encoder: Final = msgspec.json.Encoder()
_orders: Final = msgspec.json.Decoder(Order)
_facts: Final = msgspec.json.Decoder(Facts)


class UnknownOrder(Reject):
    """The event is about an order that was never accepted here."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key, what was asked for with it, and the order that it makes."""

    key: str
    fingerprint: bytes
    order_id: uuid.UUID


async def claim(tx: Transaction, claims: Collection[Claim]) -> set[str]:
    """Takes the keys that nobody has, and returns them. Never waits for another transaction.

    There is at most one claim per key.
    """
    records = sorted((claim.key, claim.fingerprint, claim.order_id) for claim in claims)
    columns = statements.columns_of(records, len(_CLAIM_COLUMNS))
    return await tx.fetch_keys(_CLAIM, *columns, expected=[claim.key for claim in claims])


async def claimed(tx: Transaction, keys: Collection[str]) -> dict[str, Claim]:
    """The claims that were committed before, by key. A key that is missing is being claimed right now."""
    return {record["key"]: Claim(**record) for record in await tx.fetch(_CLAIMED, list(keys))}


async def forget_keys(tx: Transaction, lifetime: timedelta, limit: int) -> int:
    """Deletes keys that are older than that, at most `limit`, and returns how many."""
    return len(await tx.fetch(_FORGET, lifetime, limit))


async def add(tx: Transaction, accepted: Collection[OrderCreated]) -> set[uuid.UUID]:
    """Writes the orders, each with its first line, and returns the ids of those that were not there yet."""
    orders = [event.data.order for event in sorted(accepted, key=lambda event: event.subject)]
    records = [
        (order.id, order.created_at, order.reference, order.currency, order.total, _encoder.encode(order))
        for order in orders
    ]
    columns = statements.columns_of(records, len(_ORDER_COLUMNS))
    new = await tx.fetch_keys(_ADD, *columns, expected=[order.id for order in orders])
    await record(tx, [(event.subject, Entry.of(event)) for event in accepted])
    return new


async def record(tx: Transaction, entries: Collection[tuple[uuid.UUID, Entry]]) -> None:
    """Writes lines into the timelines of these orders. Raises UnknownOrder when one of them is not there."""
    try:
        await tx.execute(_RECORD, *_lines(entries))
    except asyncpg.ForeignKeyViolationError as error:
        raise UnknownOrder from error


async def note(tx: Transaction, delays: Collection[tuple[uuid.UUID, Entry]]) -> None:
    """Writes down what these orders wait for, as far as they are there."""
    await tx.execute(_NOTE, *_lines(delays))


def _lines(entries: Collection[tuple[uuid.UUID, Entry]]) -> list[list[object]]:
    records = sorted(
        (order_id, entry.event_id, entry.type, entry.time, _encoder.encode(entry.facts))
        for order_id, entry in entries
    )
    return statements.columns_of(records, len(_ENTRY_COLUMNS))


async def find(
    database: Reads, order_ids: Collection[uuid.UUID]
) -> dict[uuid.UUID, tuple[Order, list[Entry]]]:
    """Those of the orders that are there, each with its timeline and its delays as they were recorded."""
    found: dict[uuid.UUID, tuple[Order, list[Entry]]] = {}
    for row in await database.fetch(_FIND, list(order_ids)):
        if row["id"] not in found:
            found[row["id"]] = (_orders.decode(row["snapshot"]), [])
        facts = _facts.decode(row["facts"])
        found[row["id"]][1].append(Entry(row["type"], row["event_id"], row["time"], facts))
    return found
