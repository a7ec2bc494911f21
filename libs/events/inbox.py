"""The inbox: which events this service has taken over, so that a duplicate changes nothing.

An event's row is written in the transaction that handles it, or parks it.
"""

import asyncio
import uuid
from collections.abc import Collection
from typing import ClassVar, Final
from weakref import WeakKeyDictionary

from sqlalchemy import Column, Index, Integer, Table, func
from sqlalchemy.dialects.postgresql import TIMESTAMP, UUID

from events.tables import METADATA
from events.transaction import Transaction

INBOX: Final = Table(
    "inbox",
    METADATA,
    Column("event_id", UUID, primary_key=True),
    Column("received_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    Index("inbox_received_at", "received_at", postgresql_using="brin"),
    postgresql_partition_by="RANGE (event_id)",
)

ATTEMPTS: Final = Table(
    "attempts",
    METADATA,
    Column("event_id", UUID, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("last_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
)
"""Redelivered events that were begun and not finished: perhaps they kill the process."""

_REGISTER: Final = """
    INSERT INTO inbox (event_id) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING RETURNING event_id"""
_KNOWN: Final = "SELECT event_id FROM inbox WHERE event_id = ANY($1::uuid[])"
_BEGIN: Final = """
    INSERT INTO attempts (event_id, count) VALUES ($1, 1)
    ON CONFLICT (event_id) DO UPDATE SET count = attempts.count + 1, last_at = now() RETURNING count"""
_FINISH: Final = "DELETE FROM attempts WHERE event_id = ANY($1::uuid[])"


async def register(tx: Transaction, event_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Writes the events' rows and returns those that are new. Sorted: two consumers never deadlock."""
    return {record["event_id"] for record in await tx.fetch(_REGISTER, sorted(event_ids))}


async def known(tx: Transaction, event_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Those of the events that were taken over already."""
    return {record["event_id"] for record in await tx.fetch(_KNOWN, sorted(event_ids))}


class Attempts:
    """Counts attempts at suspicious events before they are made, so that one that kills is found out.

    An attempt counts when it died with its process. One that this process goes on with, after the database
    was away for example, is still the same attempt. In a process only one attempt is made at a time, for all
    its services: else those that die beside the one that kills would be counted too.
    """

    _alone: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._begun: dict[uuid.UUID, int] = {}

    def alone(self) -> asyncio.Lock:
        """Held, from `begin` to the end, by whoever makes an attempt in this process."""
        return self._alone.setdefault(asyncio.get_running_loop(), asyncio.Lock())

    async def begin(self, tx: Transaction, event_id: uuid.UUID) -> int:
        """Which attempt at the event this is, from 1. Commit before making it."""
        if event_id not in self._begun:
            [record] = await tx.fetch(_BEGIN, event_id)
            self._begun[event_id] = record["count"]
        return self._begun[event_id]

    async def finish(self, tx: Transaction, event_ids: Collection[uuid.UUID]) -> None:
        """Strikes the attempts at events that come to an end with this transaction, good or bad."""
        begun = sorted(event_id for event_id in event_ids if event_id in self._begun)
        if begun:
            await tx.execute(_FINISH, begun)

    def forget(self, event_ids: Collection[uuid.UUID]) -> None:
        """The transaction that finished them is committed: should they come again, that is a new attempt."""
        for event_id in event_ids:
            self._begun.pop(event_id, None)
