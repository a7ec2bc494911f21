"""Subscriptions: which service's events each service listens to, and which of them never arrived."""

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
class Subscription:
    """The event types of one publisher that one listener's handler table names."""

    publisher: str
    listener: str
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A published message with events that are missing in the listener's inbox (a parked event is there)."""

    message_id: UUID
    type: str
    event_ids: tuple[UUID, ...]
    """The missing events."""


def subscriptions() -> list[Subscription]:
    """Every pair of publisher and listener that has event types in common."""
    by_pair: dict[tuple[str, str], list[str]] = {}
    for listener in SERVICES:
        for event in load(listener).handlers:
            for publisher in event.PUBLISHERS:
                by_pair.setdefault((publisher, listener), []).append(type_of(event))
    return [
        Subscription(publisher, listener, tuple(types)) for (publisher, listener), types in by_pair.items()
    ]


# `OFFSET 0` makes PostgreSQL look each event up in the inbox by its key: a join might read the whole inbox.
_UNDELIVERED: Final = """
    WITH chunk AS MATERIALIZED (
        SELECT id, type, event_ids, state, published_at FROM "{publisher}".outbox
        WHERE id > $1 ORDER BY id LIMIT $2)
    SELECT chunk.id, type, array_agg(event.id) AS event_ids
    FROM chunk CROSS JOIN unnest(event_ids) AS event (id)
    WHERE type = ANY($3::text[]) AND state = 'published'
        AND published_at BETWEEN now() - $5::interval AND now() - make_interval(secs => $4)
        AND NOT EXISTS (SELECT FROM "{listener}".inbox WHERE event_id = event.id OFFSET 0)
    GROUP BY chunk.id, type ORDER BY chunk.id"""
_MESSAGE_IDS: Final = 'SELECT id FROM "{publisher}".outbox WHERE id > $1 ORDER BY id LIMIT $2'
_MESSAGES: Final = """
    SELECT id, type, body, event_ids, order_ids FROM "{publisher}".outbox WHERE id = ANY($1::uuid[])
    ORDER BY id"""


async def message_ids(tx: Transaction, publisher: str, after: UUID, limit: int) -> list[UUID]:
    """Ids of the publisher's next messages after `after`, ascending, at most `limit`."""
    found = await tx.fetch(_MESSAGE_IDS.format(publisher=publisher), after, limit)
    return [record["id"] for record in found]


async def undelivered(
    tx: Transaction, subscription: Subscription, after: UUID, limit: int, *, grace: float
) -> list[Undelivered]:
    """Finds undelivered messages among those that `message_ids` lists for the same `after` and `limit`.

    Only messages published at least `grace` seconds ago count. Messages older than the outbox's lifetime do
    not: an unfinished message of their week may keep them, but the listener may have dropped its inbox rows.
    """
    statement = _UNDELIVERED.format(publisher=subscription.publisher, listener=subscription.listener)
    return [
        Undelivered(record["id"], record["type"], tuple(record["event_ids"]))
        for record in await tx.fetch(statement, after, limit, subscription.types, grace, OUTBOX_LIFETIME)
    ]


async def messages(tx: Transaction, publisher: str, ids: Sequence[UUID]) -> list[Message]:
    """These messages in full, by id."""
    return [message_of(record) for record in await tx.fetch(_MESSAGES.format(publisher=publisher), ids)]


def message_of(record: asyncpg.Record) -> Message:
    """The message that an outbox row holds."""
    return Message(
        record["id"], record["type"], record["body"], tuple(record["event_ids"]), tuple(record["order_ids"])
    )
