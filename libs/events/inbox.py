"""The inbox: the events that this service has taken over, so that a duplicate changes nothing.

An event's row is written in the transaction that handles or parks the event.
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
"""Redelivered events that were begun and not finished: one of them may kill the process.

`count` counts attempts at the event alone; it is 0 after an attempt in a batch.
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
    """Writes the events' rows and returns the new ones. Sorted rows keep consumers from deadlocks."""
    ordered = sorted(event_ids)
    return await tx.fetch_keys(
        _REGISTER, ordered, [digests.get(event_id) for event_id in ordered], expected=ordered
    )


async def with_other_payload(tx: Transaction, digests: Mapping[uuid.UUID, int]) -> set[uuid.UUID]:
    """The events that were taken over with another payload, as far as digests are known."""
    found = await tx.fetch(_DIFFERING, list(digests), list(digests.values()))
    return {record["event_id"] for record in found}


async def already_registered(tx: Transaction, event_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """The events that are in the inbox."""
    return {record["event_id"] for record in await tx.fetch(_KNOWN, sorted(event_ids))}


class Attempts:
    """Records attempts at redelivered events before they are made, to find an event that kills the process.

    The table counts, not the broker, which also counts deliveries that were never begun. This happens to a
    message with one event that kills its process, beside harmless ones:

    1. First delivery: all events go in one batch, and no attempt is recorded. The process dies.
    2. Second delivery: no event has a row, so all go in one batch; a commit before it gives each a row with
       the count 0. The process dies.
    3. Third delivery: each event has a row, so each is handled alone, its count raised before. The harmless
       ones are handled and their rows deleted. The killing one has the count 1. The process dies.
    4. Fourth delivery: the harmless ones are in the inbox. The killing one has the count 2. The process dies.
    5. Fifth delivery: its count would be 3, above the worker's MAX_DEATHS. It is parked as dead, not tried.

    Attempts in a batch do not count, so a harmless event is never parked because of its neighbours. It would
    have to be handled alone at two deaths of its process.

    An attempt counts if the process died during it. If the same process continues, for example after an
    outage of the database, it is the same attempt. A process makes one attempt at a time for all its
    services, so that events of other services are not counted at a death.
    """

    _lock: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._begun: dict[uuid.UUID, int] = {}
        """The counts of attempts that this process has begun and not finished."""

    def lock(self) -> asyncio.Lock:
        """Serializes attempts. Hold it from `begin` or `begin_together` until `forget`."""
        return self._lock.setdefault(asyncio.get_running_loop(), asyncio.Lock())

    async def begin_together(self, tx: Transaction, event_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """Returns the events that may go in one batch; the others go alone. Commit before handling."""
        together = {event_id for event_id in event_ids if self._begun.get(event_id) == 0}
        others = sorted(event_id for event_id in event_ids if event_id not in self._begun)
        if others:
            together |= {record["event_id"] for record in await tx.fetch(_BEGIN_TOGETHER, others)}
        self._begun |= dict.fromkeys(together, 0)
        return together

    async def begin(self, tx: Transaction, event_id: uuid.UUID) -> int:
        """Returns the number of this attempt at the event alone, from 1. Commit before handling."""
        if not self._begun.get(event_id):
            [record] = await tx.fetch(_BEGIN, event_id)
            self._begun[event_id] = record["count"]
        return self._begun[event_id]

    async def finish(self, tx: Transaction, event_ids: Collection[uuid.UUID]) -> None:
        """Deletes the attempts at events that this transaction handles or parks."""
        begun = sorted(event_id for event_id in event_ids if event_id in self._begun)
        if begun:
            await tx.execute(_FINISH, begun)

    def forget(self, event_ids: Collection[uuid.UUID]) -> None:
        """Call after the commit of `finish`: if the events are delivered again, that is a new attempt."""
        for event_id in event_ids:
            self._begun.pop(event_id, None)
