"""Feeds: which service's outbox holds what which service listens to, and what of it never arrived."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from events.bus import Message
from events.contracts import type_of
from events.partitions import OUTBOX_LIFETIME
from events.transaction import Transaction
from ops.services import SERVICES, load


@dataclass(frozen=True)
class Feed:
    """What one service publishes and another one's handler table names."""

    publisher: str
    listener: str
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gap:
    """A published message of which the listener has no inbox row for some events (a parked event has one)."""

    message_id: UUID
    type: str
    event_ids: tuple[UUID, ...]
    """The events that are missing."""


def feeds() -> list[Feed]:
    """Every outbox with every handler table that names something in it."""
    by_pair: dict[tuple[str, str], list[str]] = {}
    for listener in SERVICES:
        for event in load(listener).handlers:
            for publisher in event.PUBLISHERS:
                by_pair.setdefault((publisher, listener), []).append(type_of(event))
    return [Feed(publisher, listener, tuple(types)) for (publisher, listener), types in by_pair.items()]


# `OFFSET 0` keeps the look into the inbox a look by its key for each event: joined, its whole might be read.
_GAPS: Final = """
    WITH chunk AS MATERIALIZED (
        SELECT id, type, event_ids, state, published_at FROM "{publisher}".outbox
        WHERE id > $1 ORDER BY id LIMIT $2)
    SELECT chunk.id, type, array_agg(event.id) AS event_ids
    FROM chunk CROSS JOIN unnest(event_ids) AS event (id)
    WHERE type = ANY($3::text[]) AND state = 'published'
        AND published_at BETWEEN now() - $5::interval AND now() - make_interval(secs => $4)
        AND NOT EXISTS (SELECT FROM "{listener}".inbox WHERE event_id = event.id OFFSET 0)
    GROUP BY chunk.id, type ORDER BY chunk.id"""
_CHUNK: Final = """
    SELECT id FROM "{publisher}".outbox WHERE id > $1 ORDER BY id LIMIT $2"""
_MESSAGES: Final = """
    SELECT id, type, body, event_ids, order_ids FROM "{publisher}".outbox WHERE id = ANY($1::uuid[])
    ORDER BY id"""


async def chunk(tx: Transaction, publisher: str, after: UUID, limit: int) -> list[UUID]:
    """Ids of the publisher's next messages, in their order: at most `limit` of them."""
    found = await tx.fetch(_CHUNK.format(publisher=publisher), after, limit)
    return [record["id"] for record in found]


async def gaps(tx: Transaction, feed: Feed, after: UUID, limit: int, *, grace: float) -> list[Gap]:
    """What of the same chunk was published at least `grace` seconds ago and never arrived.

    A message that was published before the outbox's lifetime is no gap: it may still be there, kept by an
    unfinished one of its week, but the listener may have forgotten it.
    """
    statement = _GAPS.format(publisher=feed.publisher, listener=feed.listener)
    return [
        Gap(record["id"], record["type"], tuple(record["event_ids"]))
        for record in await tx.fetch(statement, after, limit, feed.types, grace, OUTBOX_LIFETIME)
    ]


async def messages(tx: Transaction, publisher: str, ids: Sequence[UUID]) -> list[Message]:
    """These messages, whole, in the order of their ids."""
    return [message(record) for record in await tx.fetch(_MESSAGES.format(publisher=publisher), ids)]


def message(record: asyncpg.Record) -> Message:
    """An outbox row as the message that it is."""
    return Message(
        record["id"], record["type"], record["body"], tuple(record["event_ids"]), tuple(record["order_ids"])
    )
