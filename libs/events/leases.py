"""Leases: the one mechanism for everything that must happen later.

Work that outlives its transaction is a row. It is born claimed for a few seconds by the process that made it,
and done straight from memory after the commit; what a crash left behind is claimed by anyone once
`claimed_until` has passed. The claim commits before the work. The database's clock decides.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, Protocol, TypeVar
from uuid import UUID

import asyncpg
import msgspec
from sqlalchemy import ARRAY, Column, Index, Integer, Table, Text, func, text
from sqlalchemy.dialects.postgresql import TIMESTAMP

from events import statements
from events.delays import DELAYED_AFTER, MAX_ANNOUNCED, WaitReason
from events.retry import FRESH, Failure, Tries
from events.text import storable
from events.transaction import Transaction

LEASE_SECONDS: Final = 15.0
"""How long a claim holds. Whoever works for longer renews it."""

logger = logging.getLogger(__name__)


class Leased(Protocol):
    """A row that stands for work to be done."""

    @property
    def id(self) -> UUID:
        """The row's primary key."""
        ...


RowT = TypeVar("RowT", bound=Leased)


def lease_columns() -> list[Column[Any]]:
    """The columns that make a table's rows claimable.

    `claimed_until`: nobody else works on the row before; also when a deferred row is due. `attempts`: failed
    tries, outages left out; `defects` and `unknowns` are those of two kinds. `waits_since`: when the row was
    written, or given another chance by a person. `last_error`: why the last try failed; `last_failure`: its
    kind. `delayed_for`: why the row waits, as far as that was announced (`events.delays`).
    """
    return [
        Column("state", Text, nullable=False),
        Column("claimed_until", TIMESTAMP(timezone=True), nullable=False),
        Column("attempts", Integer, nullable=False, server_default=text("0")),
        Column("defects", Integer, nullable=False, server_default=text("0")),
        Column("unknowns", Integer, nullable=False, server_default=text("0")),
        Column("waits_since", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
        Column("last_error", Text),
        Column("last_failure", Text),
        Column("delayed_for", ARRAY(Text)),
    ]


def lease_indexes(table: str, waiting: str) -> list[Index]:
    """The indexes that find what is waiting and what was given up; each holds only that."""
    return [
        Index(f"{table}_waiting", "claimed_until", postgresql_where=text(f"state = '{waiting}'")),
        Index(f"{table}_dead", "waits_since", postgresql_where=text("state = 'dead'")),
    ]


def claimed() -> str:
    """SQL for `claimed_until` of a row that is born claimed."""
    return f"now() + interval '{LEASE_SECONDS} seconds'"


@dataclass(frozen=True, slots=True)
class Lease(Generic[RowT]):
    """A claimed row, and how often it was tried before."""

    row: RowT
    tries: Tries = FRESH


@dataclass(frozen=True, slots=True)
class Deferral:
    """A row whose try failed: due again after `delay` seconds, or given up as `state`."""

    id: UUID
    failure: Failure
    error: str
    delay: float
    state: str | None = None


@dataclass(frozen=True, slots=True)
class Overdue(Generic[RowT]):
    """A row that has waited for over a minute, and why: announced for the first time."""

    row: RowT
    why: WaitReason
    since: datetime


class Leases(Generic[RowT]):
    """Claims on the rows of one table that are in the waiting state."""

    def __init__(
        self,
        table: Table,
        read: Callable[[asyncpg.Record], RowT],
        *,
        waiting: str,
        columns: Collection[str],
        why: str = "CASE WHEN $1::boolean THEN 'outage' ELSE coalesce(last_failure, 'backlog') END",
    ) -> None:
        """`columns` are what `read` needs beside the counters.

        `why` is SQL: why a row in the waiting state waits. `$1` is whether there is an outage. NULL for rows
        whose delay is not worth announcing.
        """
        self.table = table.name
        self._read = read
        counters = ("attempts", "defects", "unknowns")
        picked = ", ".join(f"t.{name}" for name in dict.fromkeys((*columns, *counters)))
        self._claim = f"""
            WITH due AS MATERIALIZED (
                SELECT id, claimed_until AS due_at FROM {table.name}
                WHERE state = '{waiting}' AND claimed_until < now()
                ORDER BY claimed_until LIMIT $1 FOR UPDATE SKIP LOCKED)
            UPDATE {table.name} AS t SET claimed_until = {claimed()} FROM due
            WHERE t.id = due.id AND t.state = '{waiting}'
            RETURNING {picked}, now() - t.waits_since AS waited, due_at"""  # noqa: S608
        self._renew = f"""
            UPDATE {table.name} SET claimed_until = {claimed()}
            WHERE id = ANY($1::uuid[]) AND state = '{waiting}' RETURNING id"""  # noqa: S608
        self._release = f"""
            UPDATE {table.name} SET claimed_until = now()
            WHERE id = ANY($1::uuid[]) AND state = '{waiting}'"""  # noqa: S608
        self._defer = f"""
            UPDATE {table.name} AS t SET last_error = row.error, last_failure = row.failure,
                attempts = t.attempts + (row.failure <> 'outage')::int,
                defects = t.defects + (row.failure = 'defect')::int,
                unknowns = t.unknowns + (row.failure = 'unknown')::int,
                claimed_until = now() + make_interval(secs => row.delay),
                state = coalesce(row.state, t.state)
            FROM unnest($1::uuid[], $2::text[], $3::text[], $4::float8[], $5::text[])
                AS row (id, failure, error, delay, state)
            WHERE t.id = row.id AND t.state = '{waiting}'"""  # noqa: S608
        # A reason that was announced stays so, whatever comes in between. Waiting for one's turn is no news
        # after another reason.
        self._announce = f"""
            WITH late AS MATERIALIZED ({_late(table.name, waiting, why)}
                UNION ALL {_late(table.name, "dead", "'dead'")} LIMIT {MAX_ANNOUNCED})
            UPDATE {table.name} AS t SET delayed_for = array_append(t.delayed_for, late.why)
            FROM late WHERE t.id = late.id
            RETURNING {picked}, t.waits_since, late.why"""  # noqa: S608

    async def claim(self, tx: Transaction, limit: int) -> list[Lease[RowT]]:
        """At most `limit` rows whose claim has run out, now claimed by the caller: longest due first.

        Commit before working. A row that this code can't read is left out: a newer version wrote it, and
        takes it once this claim has run out.
        """
        records = sorted(await tx.fetch(self._claim, limit), key=_due)
        return [
            Lease(row, Tries(record["attempts"], record["defects"], record["unknowns"], record["waited"]))
            for record, row in self._readable(records)
        ]

    async def announce(self, tx: Transaction, *, in_outage: bool) -> list[Overdue[RowT]]:
        """The rows that have waited for over a minute for a reason that was not announced yet, oldest first.

        Each row and reason is returned once, to whoever asks first: the caller announces it with this
        transaction. At most MAX_ANNOUNCED. Rows that were given up count as waiting for a person. The claims
        do not matter, and stay as they are.
        """
        records = sorted(await tx.fetch(self._announce, in_outage), key=_waits_since)
        return [Overdue(row, record["why"], record["waits_since"]) for record, row in self._readable(records)]

    def _readable(self, records: Iterable[asyncpg.Record]) -> Iterator[tuple[asyncpg.Record, RowT]]:
        for record in records:
            try:
                row = self._read(record)
            except msgspec.MsgspecError as error:
                logger.warning("%s %s is left to a newer version: %s", self.table, record["id"], error)
            else:
                yield record, row

    async def renew(self, tx: Transaction, ids: Sequence[UUID]) -> set[UUID]:
        """Prolongs the caller's claims. Returns the rows that still wait: the others are settled."""
        return {record["id"] for record in await tx.fetch(self._renew, sorted(ids))}

    async def release(self, tx: Transaction, ids: Sequence[UUID]) -> None:
        """Gives claims back, for anyone to take at once."""
        await tx.execute(self._release, sorted(ids))

    async def defer(self, tx: Transaction, deferrals: Sequence[Deferral]) -> None:
        """Puts rows off, or gives them up. Rows that are no longer waiting stay as they are."""
        ordered = sorted(deferrals, key=lambda deferral: deferral.id)
        rows = [(d.id, d.failure, storable(d.error, 1000), d.delay, d.state) for d in ordered]
        await tx.execute(self._defer, *statements.columns_of(rows, 5))


def _late(table: str, state: str, why: str) -> str:
    """SQL for rows (id, why) in this state that have waited for over a minute, without an announcement."""
    return f"""
        SELECT id, why FROM (
            SELECT id, why FROM {table}, LATERAL (SELECT {why}) AS because (why)
            WHERE state = '{state}' AND waits_since < now() - interval '{DELAYED_AFTER} seconds'
                AND why IS NOT NULL
                AND CASE why WHEN 'backlog' THEN delayed_for IS NULL
                    ELSE why <> ALL (coalesce(delayed_for, '{{}}')) END
            ORDER BY waits_since, id LIMIT {MAX_ANNOUNCED}
            FOR UPDATE OF {table} SKIP LOCKED) AS {state}"""  # noqa: S608


def _waits_since(record: asyncpg.Record) -> tuple[Any, ...]:
    return record["waits_since"], record["id"]


def _due(record: asyncpg.Record) -> tuple[Any, ...]:
    return record["due_at"], record["id"]
