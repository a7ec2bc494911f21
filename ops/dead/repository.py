"""The repository of failed work: reads and changes the dead rows in all tables of a service that have claims.

Rows that failed and wait for their next try are not dead; they can be found, replayed and discarded by id.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from events import interventions
from events.envelope import UNDECODABLE
from events.interventions import Subject
from events.leases import LEASE_SECONDS
from events.transaction import Transaction
from ops.owner_database import BATCH, OwnerDatabase

PARKED: Final = "parked"
DISCARDED: Final = {PARKED: "discarded", "mails": "refused"}
"""The state of a discarded row, by table. Other tables can't be discarded: money and parcels are owed."""


@dataclass(frozen=True, slots=True)
class FailedWork:
    """A parked event or a row of work that failed: dead, or waiting for its next try."""

    service: str
    table: str
    id: UUID
    """The event's id, or the row's."""
    type: str
    """The event's type, or the table's name."""
    order_id: UUID | None
    reason: str
    """The error's class or the rejection's code; `failed` for work that is not an event."""
    error: str | None
    attempts: int
    first_at: datetime
    last_at: datetime
    """The last try of an event; for other work, the time at which its next try was due."""

    @property
    def replayable(self) -> bool:
        """Whether a retry could succeed."""
        return self.reason != UNDECODABLE

    @property
    def discardable(self) -> bool:
        """Whether an operator may discard it."""
        return self.table in DISCARDED


_TABLES: Final = """
    SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
    WHERE attname = 'claimed_until' AND NOT attisdropped AND relkind IN ('r', 'p') AND NOT relispartition
        AND relnamespace = current_schema()::regnamespace
    ORDER BY relname <> 'parked', relname"""

# The tables' columns have different names; in JSON, a missing column is null.
_FAILED: Final = """
    SELECT id, coalesce(j->>'type', '{table}') AS type,
        coalesce(j->>'order_id', j->'order_ids'->>0)::uuid AS order_id,
        coalesce(j->>'reason', 'failed') AS reason, j->>'last_error' AS error, attempts,
        coalesce(j->>'first_failed_at', j->>'created_at', j->>'written_at')::timestamptz AS first_at,
        coalesce(j->>'last_failed_at', j->>'claimed_until')::timestamptz AS last_at
    FROM (SELECT id, attempts, to_jsonb(t) AS j FROM {table} AS t WHERE {condition}) AS failed
    ORDER BY id"""
_IS_DEAD: Final = "state = 'dead'"
# A row that a process may have claimed is left alone; a claim lasts no longer than this.
_IS_WAITING: Final = (
    "(state = '{waiting}' AND last_error IS NOT NULL "
    f"AND NOT claimed_until BETWEEN now() AND now() + interval '{LEASE_SECONDS} seconds')"
)
_ROW: Final = """
    SELECT to_jsonb(t)::text AS row FROM {table} AS t
    WHERE id = $1 AND (state IN ('dead', 'discarded') OR last_error IS NOT NULL)"""
_REPLAY: Final = f"""
    UPDATE {{table}} SET state = '{{waiting}}', attempts = 0, defects = 0, unknowns = 0,
        waits_since = now(), claimed_until = now(), last_failure = NULL, delayed_for = NULL
    WHERE id = ANY($1::uuid[]) AND ({_IS_DEAD} OR {_IS_WAITING}) RETURNING id"""  # noqa: S608
_DISCARD: Final = f"""
    UPDATE {{table}} SET state = '{{discarded}}'
    WHERE id = ANY($1::uuid[]) AND ({_IS_DEAD} OR {_IS_WAITING}) RETURNING id"""  # noqa: S608
_INTERVENTIONS: Final = (
    "SELECT to_jsonb(i)::text AS row FROM interventions AS i WHERE event_id = $1 ORDER BY id"
)


async def dead(schemas: OwnerDatabase, service: str) -> list[FailedWork]:
    """The service's dead rows: events first, by id."""
    return await _failed(schemas, service, _IS_DEAD)


async def waiting(schemas: OwnerDatabase, service: str, ids: Collection[UUID]) -> list[FailedWork]:
    """The service's rows of these ids that wait for their next try: events first, by id."""
    return await _failed(schemas, service, f"id = ANY($1::uuid[]) AND {_IS_WAITING}", list(ids))


async def _failed(
    schemas: OwnerDatabase, service: str, condition: str, *arguments: object
) -> list[FailedWork]:
    found: list[FailedWork] = []
    async with schemas.as_service(service) as tx:
        for table in await _tables(tx):
            query = _FAILED.format(table=table, condition=condition.format(waiting=_waiting_state(table)))
            found.extend(FailedWork(service, table, **record) for record in await tx.fetch(query, *arguments))
    return found


async def full_rows(
    schemas: OwnerDatabase, service: str, row_id: UUID
) -> list[tuple[str, dict[str, Any], list[Any]]]:
    """Every row of this id that has failed: its table, its columns and the interventions on it."""
    async with schemas.as_service(service) as tx:
        found = [
            (table, msgspec.json.decode(record["row"]))
            for table in await _tables(tx)
            for record in await tx.fetch(_ROW.format(table=table), row_id)
        ]
        acts = [msgspec.json.decode(record["row"]) for record in await tx.fetch(_INTERVENTIONS, row_id)]
    return [(table, columns, acts) for table, columns in found]


async def replay(schemas: OwnerDatabase, chosen: Sequence[FailedWork], *, actor: str) -> list[FailedWork]:
    """Makes the rows due now with their attempts reset, and returns those that it changed.

    The service's own runners do the work. Rows that are neither dead nor waiting any more are not changed.
    """
    done: list[FailedWork] = []
    for batch in _batches(chosen):
        statement = _REPLAY.format(table=batch[0].table, waiting=_waiting_state(batch[0].table))
        async with schemas.as_service(batch[0].service) as tx:
            acted = await _act(tx, statement, batch)
            await interventions.record(tx, "replay", _subjects(acted), actor=actor)
        done.extend(acted)
    return done


async def discard(
    schemas: OwnerDatabase, chosen: Sequence[FailedWork], *, actor: str, note: str
) -> list[FailedWork]:
    """Discards events and mails, and returns those that it changed; the rows are kept but never retried."""
    done: list[FailedWork] = []
    for batch in _batches([each for each in chosen if each.discardable]):
        table = batch[0].table
        statement = _DISCARD.format(table=table, waiting=_waiting_state(table), discarded=DISCARDED[table])
        async with schemas.as_service(batch[0].service) as tx:
            acted = await _act(tx, statement, batch)
            await interventions.record(tx, "discard", _subjects(acted), actor=actor, note=note)
        done.extend(acted)
    return done


def _waiting_state(table: str) -> str:
    """The state of a row that waits for its next try."""
    return "retry" if table == PARKED else "pending"


async def _act(tx: Transaction, statement: str, batch: Sequence[FailedWork]) -> list[FailedWork]:
    """The rows of the batch that the statement changed."""
    changed = {record["id"] for record in await tx.fetch(statement, [each.id for each in batch])}
    return [each for each in batch if each.id in changed]


async def _tables(tx: Transaction) -> list[str]:
    return [record["relname"] for record in await tx.fetch(_TABLES)]


def _batches(chosen: Collection[FailedWork]) -> list[list[FailedWork]]:
    """One batch for each transaction: rows of one table of one service, sorted by id."""
    by_table: dict[tuple[str, str], list[FailedWork]] = {}
    for each in sorted(chosen, key=lambda each: each.id):
        by_table.setdefault((each.service, each.table), []).append(each)
    return [each[start : start + BATCH] for each in by_table.values() for start in range(0, len(each), BATCH)]


def _subjects(acted: Sequence[FailedWork]) -> list[Subject]:
    return [Subject(each.id, each.type, each.order_id, each.reason, each.error) for each in acted]
