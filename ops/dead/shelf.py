"""The shelf of dead work: every table of a service that has claims may hold some, as its `state` says.

Work that failed and waits for its next try is not dead, but it is found, replayed and discarded by its id.
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
GIVEN_UP: Final = {PARKED: "discarded", "mails": "refused"}
"""The tables whose rows a person may give up, and the state of such a row. Money and parcels are owed."""


@dataclass(frozen=True, slots=True)
class Dead:
    """An event (of the table `parked`), or other work, that failed: dead, or waiting for its next try."""

    service: str
    table: str
    id: UUID
    """The event's id; of other work its row's."""
    type: str
    """The event's type; of other work its table."""
    order_id: UUID | None
    reason: str
    """A word: the class of the error, or the code of a rejection; `failed` for other work."""
    error: str | None
    attempts: int
    first_at: datetime
    last_at: datetime
    """When it was tried last; of other work when it would have been tried next."""

    @property
    def replayable(self) -> bool:
        """Whether trying again could end otherwise."""
        return self.reason != UNDECODABLE

    @property
    def discardable(self) -> bool:
        """Whether a person may give it up."""
        return self.table in GIVEN_UP


_TABLES: Final = """
    SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
    WHERE attname = 'claimed_until' AND NOT attisdropped AND relkind IN ('r', 'p') AND NOT relispartition
        AND relnamespace = current_schema()::regnamespace
    ORDER BY relname <> 'parked', relname"""

# What the tables call it differs; as JSON a column that is not there is just null.
_FAILED: Final = """
    SELECT id, coalesce(j->>'type', '{table}') AS type,
        coalesce(j->>'order_id', j->'order_ids'->>0)::uuid AS order_id,
        coalesce(j->>'reason', 'failed') AS reason, j->>'last_error' AS error, attempts,
        coalesce(j->>'first_failed_at', j->>'created_at', j->>'written_at')::timestamptz AS first_at,
        coalesce(j->>'last_failed_at', j->>'claimed_until')::timestamptz AS last_at
    FROM (SELECT id, attempts, to_jsonb(t) AS j FROM {table} AS t WHERE {condition}) AS failed
    ORDER BY id"""
_IS_DEAD: Final = "state = 'dead'"
# A row that may be in a process's hands is left to it: a claim holds for no longer.
_IS_PUT_OFF: Final = (
    "(state = '{waiting}' AND last_error IS NOT NULL "
    f"AND NOT claimed_until BETWEEN now() AND now() + interval '{LEASE_SECONDS} seconds')"
)
_ROW: Final = """
    SELECT to_jsonb(t)::text AS row FROM {table} AS t
    WHERE id = $1 AND (state IN ('dead', 'discarded') OR last_error IS NOT NULL)"""
_REPLAY: Final = f"""
    UPDATE {{table}} SET state = '{{waiting}}', attempts = 0, defects = 0, unknowns = 0,
        waits_since = now(), claimed_until = now(), last_failure = NULL, delayed_for = NULL
    WHERE id = ANY($1::uuid[]) AND ({_IS_DEAD} OR {_IS_PUT_OFF}) RETURNING id"""  # noqa: S608
_DISCARD: Final = f"""
    UPDATE {{table}} SET state = '{{given_up}}'
    WHERE id = ANY($1::uuid[]) AND ({_IS_DEAD} OR {_IS_PUT_OFF}) RETURNING id"""  # noqa: S608
_INTERVENTIONS: Final = (
    "SELECT to_jsonb(i)::text AS row FROM interventions AS i WHERE event_id = $1 ORDER BY id"
)


async def dead(schemas: OwnerDatabase, service: str) -> list[Dead]:
    """All that is dead at the service: events first, by id."""
    return await _failed(schemas, service, _IS_DEAD)


async def put_off(schemas: OwnerDatabase, service: str, ids: Collection[UUID]) -> list[Dead]:
    """Which of these wait at the service for their next try: events first, by id."""
    return await _failed(schemas, service, f"id = ANY($1::uuid[]) AND {_IS_PUT_OFF}", list(ids))


async def _failed(schemas: OwnerDatabase, service: str, condition: str, *arguments: object) -> list[Dead]:
    found: list[Dead] = []
    async with schemas.as_service(service) as tx:
        for table in await _tables(tx):
            query = _FAILED.format(table=table, condition=condition.format(waiting=_waiting(table)))
            found.extend(Dead(service, table, **record) for record in await tx.fetch(query, *arguments))
    return found


async def rows(
    schemas: OwnerDatabase, service: str, row_id: UUID
) -> list[tuple[str, dict[str, Any], list[Any]]]:
    """Whole rows of this id that failed once: table, columns, and what was done to it by hand."""
    async with schemas.as_service(service) as tx:
        found = [
            (table, msgspec.json.decode(record["row"]))
            for table in await _tables(tx)
            for record in await tx.fetch(_ROW.format(table=table), row_id)
        ]
        acts = [msgspec.json.decode(record["row"]) for record in await tx.fetch(_INTERVENTIONS, row_id)]
    return [(table, columns, acts) for table, columns in found]


async def replay(schemas: OwnerDatabase, chosen: Sequence[Dead], *, actor: str) -> list[Dead]:
    """Puts dead work back to be done at once, its attempts counted anew; returns what it was done to.

    The service's own runners do the rest. What is no longer dead stays as it is.
    """
    done: list[Dead] = []
    for batch in _batches(chosen):
        statement = _REPLAY.format(table=batch[0].table, waiting=_waiting(batch[0].table))
        async with schemas.as_service(batch[0].service) as tx:
            acted = await _act(tx, statement, batch)
            await interventions.record(tx, "replay", _subjects(acted), actor=actor)
        done.extend(acted)
    return done


async def discard(schemas: OwnerDatabase, chosen: Sequence[Dead], *, actor: str, note: str) -> list[Dead]:
    """Gives events and mails up: the rows are kept, and nothing brings them back.

    Returns what it was done to.
    """
    done: list[Dead] = []
    for batch in _batches([each for each in chosen if each.discardable]):
        table = batch[0].table
        statement = _DISCARD.format(table=table, waiting=_waiting(table), given_up=GIVEN_UP[table])
        async with schemas.as_service(batch[0].service) as tx:
            acted = await _act(tx, statement, batch)
            await interventions.record(tx, "discard", _subjects(acted), actor=actor, note=note)
        done.extend(acted)
    return done


def _waiting(table: str) -> str:
    """The state of what waits for its next try."""
    return "retry" if table == PARKED else "pending"


async def _act(tx: Transaction, statement: str, batch: Sequence[Dead]) -> list[Dead]:
    """Those of the batch that the statement changed."""
    changed = {record["id"] for record in await tx.fetch(statement, [each.id for each in batch])}
    return [each for each in batch if each.id in changed]


async def _tables(tx: Transaction) -> list[str]:
    return [record["relname"] for record in await tx.fetch(_TABLES)]


def _batches(chosen: Collection[Dead]) -> list[list[Dead]]:
    """What can be done in one transaction each: of one table of one service, in the order of the ids."""
    by_table: dict[tuple[str, str], list[Dead]] = {}
    for each in sorted(chosen, key=lambda each: each.id):
        by_table.setdefault((each.service, each.table), []).append(each)
    return [each[start : start + BATCH] for each in by_table.values() for start in range(0, len(each), BATCH)]


def _subjects(acted: Sequence[Dead]) -> list[Subject]:
    return [Subject(each.id, each.type, each.order_id, each.reason, each.error) for each in acted]
