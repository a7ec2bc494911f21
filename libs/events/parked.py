"""Parked events: events that could not be handled, with the reason. They hold up no other event.

The state `retry` means that the event is tried again with exponential backoff, MAX_ATTEMPTS times in all.
`dead` events are not tried again until a person replays them. `discarded` ones were given up by a person; the
row is kept. An event of an unknown type or version is retried without being counted, for PATIENCE: during an
upgrade processes of a newer version share the table and handle it. A parked event has its inbox row, so a
duplicate changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import asyncpg
from sqlalchemy import Column, LargeBinary, Table, Text, func
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import TIMESTAMP

from events import envelope, statements
from events.backoff import backoff
from events.contracts import AnyEvent, type_of
from events.envelope import Rejected
from events.errors import Reject
from events.leases import Leases, lease_columns, lease_indexes
from events.retry import RetryPolicy
from events.tables import METADATA
from events.text import storable
from events.transaction import Transaction

MAX_ATTEMPTS: Final = 8
RETRY: Final = RetryPolicy(deadline=10, first=1, longest=300, defects=MAX_ATTEMPTS)
PATIENCE: Final = timedelta(days=7)
"""How long an event that only a newer version can handle is retried before it is dead."""

PARKED: Final = Table(
    "parked",
    METADATA,
    Column("id", postgresql.UUID, primary_key=True, comment="the event's id"),
    Column("type", Text, nullable=False),
    Column("order_id", postgresql.UUID),
    Column("body", LargeBinary, nullable=False, comment="the event as JSON"),
    Column("reason", Text, nullable=False),
    Column("first_failed_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    Column("last_failed_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    *lease_columns(),
    *lease_indexes("parked", "retry"),
)

_COLUMNS: Final = ("id", "type", "order_id", "body", "reason", "state", "attempts", "last_error")


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """An event to try again."""

    id: UUID
    body: bytes
    """The event as JSON."""
    attempts: int


def _read(record: asyncpg.Record) -> ParkedEvent:
    return ParkedEvent(id=record["id"], body=record["body"], attempts=record["attempts"])


LEASES: Final[Leases[ParkedEvent]] = Leases(
    PARKED,
    _read,
    waiting="retry",
    columns=("id", "body", "attempts"),
    why=f"""
        CASE WHEN reason = 'replay' OR $1::boolean THEN NULL
            WHEN reason IN {envelope.FOR_NEWER_VERSION} THEN 'newer' ELSE 'defect' END""",
)
"""Neither replays nor waits in an outage of the database are announced as delays."""

_INSERT: Final = statements.insert(
    PARKED,
    _COLUMNS,
    computed={"claimed_until": "now() + interval '1 second' * (0.5 + random() / 2)"},
    then="ON CONFLICT DO NOTHING",
)
_AGAIN: Final = """
    UPDATE parked SET attempts = attempts + 1, last_failed_at = now(), reason = $2, last_error = $3,
        state = $4, claimed_until = now() + make_interval(secs => $5::float8)
    WHERE id = $1 AND state = 'retry'"""
_STILL_UNKNOWN: Final = """
    UPDATE parked SET last_failed_at = now(), reason = $2, last_error = $3,
        state = CASE WHEN waits_since < now() - $4::interval THEN 'dead' ELSE state END,
        claimed_until = now() + (0.5 + random() / 2)
            * greatest('1 second', least('5 minutes', now() - waits_since))
    WHERE id = $1 AND state = 'retry'"""
_PUT_IN: Final = statements.insert(
    PARKED,
    ("id", "type", "order_id", "body"),
    computed={"reason": "'replay'", "state": "'retry'", "claimed_until": "now()"},
    then="ON CONFLICT DO NOTHING RETURNING id",
)
_TAKE: Final = "DELETE FROM parked WHERE id = $1 AND state = 'retry' RETURNING id"


async def park(tx: Transaction, event: AnyEvent, error: Exception) -> None:
    """Parks an event whose handling failed: for another try, or as dead after a Reject."""
    state, reason = _verdict(error, attempts=1)
    body = envelope.encode_one(event)
    row = (event.id, type_of(type(event)), event.subject, body, reason, state, 1, _words_of(error))
    await _insert(tx, [row])


async def park_rejected(tx: Transaction, rejected: Sequence[Rejected]) -> None:
    """Parks rejected events: as dead, or for a newer version to try."""
    rows = [
        (r.id, r.type, r.order_id, r.body, r.code, "retry" if r.for_newer_version else "dead", 0, r.message)
        for r in rejected
    ]
    await _insert(tx, rows)


async def take(tx: Transaction, parked: ParkedEvent) -> bool:
    """Removes the event, to handle it in this transaction. Returns False if another process has it."""
    return bool(await tx.fetch(_TAKE, parked.id))


async def park_again(tx: Transaction, parked: ParkedEvent, error: Exception) -> None:
    """Defers an event that failed again, or marks it dead after MAX_ATTEMPTS."""
    state, reason = _verdict(error, attempts=parked.attempts + 1)
    delay = backoff(parked.attempts, first=RETRY.first, most=RETRY.longest)
    await tx.execute(_AGAIN, parked.id, reason, _words_of(error), state, delay)


async def defer_to_newer_version(tx: Transaction, parked: ParkedEvent, rejected: Rejected) -> None:
    """Defers an event for a newer version by at most five minutes, or marks it dead after PATIENCE."""
    await tx.execute(_STILL_UNKNOWN, parked.id, rejected.code, rejected.message, PATIENCE)


async def park_for_replay(tx: Transaction, events: Sequence[AnyEvent]) -> set[UUID]:
    """Parks events as due now, so that they are handled again, and returns their ids.

    Events that are parked already do not change.
    """
    ordered = sorted(events, key=lambda event: event.id)
    rows = [(e.id, type_of(type(e)), e.subject, envelope.encode_one(e)) for e in ordered]
    return {record["id"] for record in await tx.fetch(_PUT_IN, *statements.columns_of(rows, 4))}


async def _insert(tx: Transaction, rows: Sequence[tuple[object, ...]]) -> None:
    await tx.execute(
        _INSERT, *statements.columns_of(sorted(rows, key=lambda row: str(row[0])), len(_COLUMNS))
    )


def _verdict(error: Exception, *, attempts: int) -> tuple[str, str]:
    state = "dead" if isinstance(error, Reject) or attempts >= MAX_ATTEMPTS else "retry"
    return state, type(error).__name__


def _words_of(error: Exception) -> str:
    return storable(str(error) or repr(error), 1000)
