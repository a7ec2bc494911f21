"""The inbox: which events this service has taken over, so that a duplicate changes nothing.

An event's row is written in the transaction that handles it, or parks it.
"""

import asyncio
import uuid
from collections.abc import Collection, Mapping
from typing import ClassVar, Final
from weakref import WeakKeyDictionary

from sqlalchemy import BigInteger, Column, Index, Integer, Table, func
from sqlalchemy.dialects.postgresql import TIMESTAMP, UUID

from events.tables import METADATA
from events.transaction import Transaction

INBOX: Final = Table(
    "inbox",
    METADATA,
    Column("event_id", UUID, primary_key=True),
    Column("received_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    Column("digest", BigInteger, comment="CRC-32 of the event as it came"),
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
"""Redelivered events that were begun and not finished: perhaps they kill the process.

`count` is of attempts at the event alone: 0 for one that was only begun together with others.
"""

_NO_DIGESTS: Final[Mapping[uuid.UUID, int]] = {}
_REGISTER: Final = """
    INSERT INTO inbox (event_id, digest) SELECT * FROM unnest($1::uuid[], $2::int8[])
    ON CONFLICT DO NOTHING RETURNING event_id"""
_DIFFERING: Final = """
    SELECT event_id FROM inbox JOIN unnest($1::uuid[], $2::int8[]) AS again (id, digest)
    ON event_id = again.id AND inbox.digest <> again.digest"""
_KNOWN: Final = "SELECT event_id FROM inbox WHERE event_id = ANY($1::uuid[])"
_BEGIN_TOGETHER: Final = """
    INSERT INTO attempts (event_id, count) SELECT unnest($1::uuid[]), 0
    ON CONFLICT DO NOTHING RETURNING event_id"""
_BEGIN: Final = """
    INSERT INTO attempts (event_id, count) VALUES ($1, 1)
    ON CONFLICT (event_id) DO UPDATE SET count = attempts.count + 1, last_at = now() RETURNING count"""
_FINISH: Final = "DELETE FROM attempts WHERE event_id = ANY($1::uuid[])"


async def register(
    tx: Transaction, event_ids: Collection[uuid.UUID], digests: Mapping[uuid.UUID, int] = _NO_DIGESTS
) -> set[uuid.UUID]:
    """Writes the events' rows and returns those that are new. Sorted: two consumers never deadlock."""
    ordered = sorted(event_ids)
    return await tx.fetch_keys(
        _REGISTER, ordered, [digests.get(event_id) for event_id in ordered], expected=ordered
    )


async def with_other_payload(tx: Transaction, digests: Mapping[uuid.UUID, int]) -> set[uuid.UUID]:
    """Those of the events that were taken over with another payload. Without a digest nothing is known."""
    found = await tx.fetch(_DIFFERING, list(digests), list(digests.values()))
    return {record["event_id"] for record in found}


async def already_registered(tx: Transaction, event_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Those of the events that were taken over already."""
    return {record["event_id"] for record in await tx.fetch(_KNOWN, sorted(event_ids))}


class Attempts:
    """Writes down attempts at redelivered events before they are made, so that one that kills is found out.

    The table decides, not the broker's count: a broker counts messages that were handed out and never begun.
    What becomes of a message with one event that kills its process, and innocent ones beside it:

    1. The message is new: all its events go in one batch, nothing is written down. The process dies.
    2. It comes again: none of its events has a row, so they go in one batch, and one commit gives each a row
       with the count 0. The process dies.
    3. It comes again: each event has a row, so each goes alone, its count raised before. The innocent ones
       are handled, and their rows struck. The one that kills has the count 1. The process dies.
    4. It comes again with the one that kills; the others are in the inbox. Its count is 2. The process dies.
    5. Its count would be 3, above the worker's MAX_DEATHS: it is parked as dead, and not tried.

    An innocent event is never given up for its company: an attempt in a batch does not count. It would have
    to be alone under way at two deaths of its process.

    An attempt counts when it died with its process. One that this process goes on with, after the database
    was away for example, is still the same attempt. A process makes one attempt at a time, for all its
    services: else those that die beside the one that kills would be counted too.
    """

    _lock: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._begun: dict[uuid.UUID, int] = {}
        """The counts of attempts that this process has begun and not finished."""

    def lock(self) -> asyncio.Lock:
        """Serializes attempts: hold it from `begin` or `begin_together` until the attempt is recorded."""
        return self._lock.setdefault(asyncio.get_running_loop(), asyncio.Lock())

    async def begin_together(self, tx: Transaction, event_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """Those of the events that may be tried in one batch; the others go alone. Commit before trying."""
        together = {event_id for event_id in event_ids if self._begun.get(event_id) == 0}
        others = sorted(event_id for event_id in event_ids if event_id not in self._begun)
        if others:
            together |= {record["event_id"] for record in await tx.fetch(_BEGIN_TOGETHER, others)}
        self._begun |= dict.fromkeys(together, 0)
        return together

    async def begin(self, tx: Transaction, event_id: uuid.UUID) -> int:
        """Which attempt at the event alone this is, from 1. Commit before making it."""
        if not self._begun.get(event_id):
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
