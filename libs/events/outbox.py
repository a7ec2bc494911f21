"""The outbox: messages are written with the transaction that emits their events, and published after it.

A row is one message. Published rows are kept for a retention time, so that events can be replayed to any
service.
"""

from collections.abc import Sequence
from typing import Final

import asyncpg
from sqlalchemy import ARRAY, Column, Index, LargeBinary, Table, Text, func
from sqlalchemy.dialects.postgresql import TIMESTAMP, UUID

from events import envelope, statements
from events.bus import Message
from events.contracts import AnyEvent
from events.leases import Leases, lease_columns, lease_indexes
from events.retry import RetryPolicy
from events.tables import METADATA
from events.transaction import Transaction

OUTBOX: Final = Table(
    "outbox",
    METADATA,
    Column("id", UUID, primary_key=True),
    Column("type", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("event_ids", ARRAY(UUID), nullable=False),
    Column("order_ids", ARRAY(UUID), nullable=False),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    Column("published_at", TIMESTAMP(timezone=True)),
    *lease_columns(),
    *lease_indexes("outbox", "pending"),
    Index("outbox_published_at", "published_at", postgresql_using="brin"),
    postgresql_partition_by="RANGE (id)",
)

PUBLISH: Final = RetryPolicy(deadline=10, first=1, longest=30)

_COLUMNS: Final = ("id", "type", "body", "event_ids", "order_ids")
_INSERT: Final = statements.insert(
    OUTBOX,
    _COLUMNS,
    computed={
        "state": "'pending'",
        "claimed_until": f"now() + make_interval(secs => ${len(_COLUMNS) + 1}::float8)",
    },
)
# The bounds let a generic plan skip partitions that can't hold any of the ids.
_MARK: Final = """
    UPDATE outbox SET state = 'published', published_at = now(), last_error = NULL
    WHERE id = ANY($1::uuid[]) AND id BETWEEN $2 AND $3 AND state = 'pending'"""


def _read(record: asyncpg.Record) -> Message:
    return Message(
        id=record["id"],
        type=record["type"],
        body=record["body"],
        event_ids=tuple(record["event_ids"]),
        order_ids=tuple(record["order_ids"]),
    )


LEASES: Final[Leases[Message]] = Leases(OUTBOX, _read, waiting="pending", columns=_COLUMNS)


async def write(tx: Transaction, events: Sequence[AnyEvent], *, lease: float) -> Sequence[Message]:
    """Writes the events as messages that are claimed for `lease` seconds, and returns these."""
    messages = envelope.messages(events)
    literal = statements.array_literal
    records = [(m.id, m.type, m.body, literal(m.event_ids), literal(m.order_ids)) for m in messages]
    await tx.execute(_INSERT, *statements.columns_of(records, len(_COLUMNS)), lease)
    return messages


async def mark_published(tx: Transaction, messages: Sequence[Message]) -> None:
    """Marks messages as published: the bus has confirmed them."""
    ids = sorted(message.id for message in messages)
    await tx.execute(_MARK, ids, ids[0], ids[-1])
