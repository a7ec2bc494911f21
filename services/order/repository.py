"""Tables and statements of the order service: orders, timelines, delays and idempotency keys."""

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
from services.order.domain import Facts, TimelineEntry

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
"""One row per event. Two contradicting events of one type both stay, for the audit to find."""

DELAYS: Final = Table(
    "delays",
    METADATA,
    Column("order_id", UUID, ForeignKey("orders.id"), primary_key=True),
    Column("event_id", UUID, primary_key=True),
    Column("type", Text, nullable=False),
    Column("time", TIMESTAMP(timezone=True), nullable=False),
    Column("facts", LargeBinary, nullable=False, comment="what the order waits for, as JSON"),
)
"""One row per ORDER_DELAYED, which is no milestone and so not in the timeline."""

IDEMPOTENCY_KEYS: Final = Table(
    "idempotency_keys",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False, comment="SHA-256 of what was asked for"),
    Column("order_id", UUID, nullable=False),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    Index("idempotency_keys_by_age", "created_at"),
)
"""The order that each key made."""

_ORDER_COLUMNS: Final = ("id", "created_at", "reference", "currency", "total", "snapshot")
_ENTRY_COLUMNS: Final = ("order_id", "event_id", "type", "time", "facts")
_KEY_COLUMNS: Final = ("key", "fingerprint", "order_id")

_ADD_ORDERS: Final = statements.insert(ORDERS, _ORDER_COLUMNS, then="ON CONFLICT DO NOTHING RETURNING id")
_ADD_TO_TIMELINE: Final = statements.insert(TIMELINE, _ENTRY_COLUMNS, then="ON CONFLICT DO NOTHING")
_ADD_DELAYS: Final = statements.insert(
    DELAYS,
    _ENTRY_COLUMNS,
    then="WHERE EXISTS (SELECT FROM orders WHERE id = row.order_id) ON CONFLICT DO NOTHING",
)
# Skips a key that another transaction is claiming: waiting for its commit would hold up the whole batch.
_CLAIM_KEYS: Final = statements.insert(
    IDEMPOTENCY_KEYS,
    _KEY_COLUMNS,
    then="""
    WHERE pg_try_advisory_xact_lock(hashtextextended(row.key, 0))
    ON CONFLICT DO NOTHING RETURNING key""",
)
_FIND_CLAIMS: Final = "SELECT key, fingerprint, order_id FROM idempotency_keys WHERE key = ANY($1::text[])"
_DELETE_EXPIRED_KEYS: Final = """
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
    """The event is about an order that this service never accepted."""


@dataclass(frozen=True, slots=True)
class KeyClaim:
    """An idempotency key, the fingerprint of its request, and the order that it makes."""

    key: str
    fingerprint: bytes
    order_id: uuid.UUID


async def claim_keys(tx: Transaction, claims: Collection[KeyClaim]) -> set[str]:
    """Claims the keys that are free, and returns those. Never waits for another transaction.

    The caller passes at most one claim per key.
    """
    records = sorted((claim.key, claim.fingerprint, claim.order_id) for claim in claims)
    columns = statements.columns_of(records, len(_KEY_COLUMNS))
    return await tx.fetch_keys(_CLAIM_KEYS, *columns, expected=[claim.key for claim in claims])


async def find_claims(tx: Transaction, keys: Collection[str]) -> dict[str, KeyClaim]:
    """The committed claims, by key. A key that is missing is being claimed by another transaction."""
    return {record["key"]: KeyClaim(**record) for record in await tx.fetch(_FIND_CLAIMS, list(keys))}


async def delete_expired_keys(tx: Transaction, lifetime: timedelta, limit: int) -> int:
    """Deletes at most `limit` keys that are older than `lifetime`, and returns how many it deleted."""
    return len(await tx.fetch(_DELETE_EXPIRED_KEYS, lifetime, limit))


async def add(tx: Transaction, accepted: Collection[OrderCreated]) -> set[uuid.UUID]:
    """Writes the orders and the first entries of their timelines. Returns the ids of orders that are new."""
    orders = [event.data.order for event in sorted(accepted, key=lambda event: event.subject)]
    records = [
        (order.id, order.created_at, order.reference, order.currency, order.total, _encoder.encode(order))
        for order in orders
    ]
    columns = statements.columns_of(records, len(_ORDER_COLUMNS))
    new = await tx.fetch_keys(_ADD_ORDERS, *columns, expected=[order.id for order in orders])
    await record_milestones(tx, [(event.subject, TimelineEntry.of(event)) for event in accepted])
    return new


async def record_milestones(tx: Transaction, entries: Collection[tuple[uuid.UUID, TimelineEntry]]) -> None:
    """Adds the entries to the timelines of their orders. Raises UnknownOrder if one is missing."""
    try:
        await tx.execute(_ADD_TO_TIMELINE, *_columns_of(entries))
    except asyncpg.ForeignKeyViolationError as error:
        raise UnknownOrder from error


async def record_delays(tx: Transaction, delays: Collection[tuple[uuid.UUID, TimelineEntry]]) -> None:
    """Records the delays of these orders, and ignores those of unknown orders."""
    await tx.execute(_ADD_DELAYS, *_columns_of(delays))


def _columns_of(entries: Collection[tuple[uuid.UUID, TimelineEntry]]) -> list[list[object]]:
    records = sorted(
        (order_id, entry.event_id, entry.type, entry.time, _encoder.encode(entry.facts))
        for order_id, entry in entries
    )
    return statements.columns_of(records, len(_ENTRY_COLUMNS))


async def find(
    database: Reads, order_ids: Collection[uuid.UUID]
) -> dict[uuid.UUID, tuple[Order, list[TimelineEntry]]]:
    """Finds orders by id, each with its timeline and delays, unsorted. Unknown ids are left out."""
    found: dict[uuid.UUID, tuple[Order, list[TimelineEntry]]] = {}
    for row in await database.fetch(_FIND, list(order_ids)):
        if row["id"] not in found:
            found[row["id"]] = (_orders.decode(row["snapshot"]), [])
        facts = _facts.decode(row["facts"])
        found[row["id"]][1].append(TimelineEntry(row["type"], row["event_id"], row["time"], facts))
    return found
