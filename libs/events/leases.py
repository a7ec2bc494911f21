"""Leases: the mechanism for all work that happens after its transaction.

Such work is a row in a table. Its row is born claimed for a few seconds by the process that writes it, which
does the work from memory right after the commit. After a crash any process can claim the row once
`claimed_until` has passed. A claim is committed before its work begins. The database's clock decides.
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
"""How long a claim lasts. Longer work has to renew it."""

logger = logging.getLogger(__name__)


class Leased(Protocol):
    """A row that stands for work."""

    @property
    def id(self) -> UUID:
        """The row's primary key."""
        ...


RowT = TypeVar("RowT", bound=Leased)


def lease_columns() -> list[Column[Any]]:
    """The columns that make a table's rows claimable.

    `claimed_until`: no other process works on the row before then; for a deferred row, when it is due.
    `attempts`: failed tries without outages; `defects` and `unknowns` are two kinds of them. `waits_since`:
    when the row was written, or replayed by a person. `last_error`: why the last try failed; `last_failure`:
    the kind of that failure. `delayed_for`: the reasons for which a delay was announced (`events.delays`).
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
    """Partial indexes of the waiting rows and of the dead rows."""
    return [
        Index(f"{table}_waiting", "claimed_until", postgresql_where=text(f"state = '{waiting}'")),
        Index(f"{table}_dead", "waits_since", postgresql_where=text("state = 'dead'")),
    ]


def claimed() -> str:
    """SQL for `claimed_until` of a row that is claimed now."""
    return f"now() + interval '{LEASE_SECONDS} seconds'"


@dataclass(frozen=True, slots=True)
class Lease(Generic[RowT]):
    """A claimed row, and its earlier tries."""

    row: RowT
    tries: Tries = FRESH


@dataclass(frozen=True, slots=True)
class Deferral:
    """A row whose try failed: due again after `delay` seconds, or given up with this `state`."""

    id: UUID
    failure: Failure
    error: str
    delay: float
    state: str | None = None
    attempts: int = 0
    """The failed tries that `state` follows from. A row with fewer was replayed meanwhile, and waits on."""


@dataclass(frozen=True, slots=True)
class Overdue(Generic[RowT]):
    """A row that has waited for over a minute for a reason that was not announced yet."""

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
        """`columns` are those that `read` needs beside the counters.

        `why` is SQL for the reason why a row in the waiting state waits; NULL if its delay is not announced.
        `$1` is whether there is an outage.
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
                state = CASE WHEN t.attempts >= row.attempts THEN coalesce(row.state, t.state)
                    ELSE t.state END
            FROM unnest($1::uuid[], $2::text[], $3::text[], $4::float8[], $5::text[], $6::int[])
                AS row (id, failure, error, delay, state, attempts)
            WHERE t.id = row.id AND t.state = '{waiting}'"""  # noqa: S608
        # A row is announced once for each reason. `backlog` is not announced after another reason.
        self._announce = f"""
            WITH late AS MATERIALIZED ({_late(table.name, waiting, why)}
                UNION ALL {_late(table.name, "dead", "'dead'")} LIMIT {MAX_ANNOUNCED})
            UPDATE {table.name} AS t SET delayed_for = array_append(t.delayed_for, late.why)
            FROM late WHERE t.id = late.id
            RETURNING {picked}, t.waits_since, late.why"""  # noqa: S608

    async def claim(self, tx: Transaction, limit: int) -> list[Lease[RowT]]:
        """Claims at most `limit` rows whose claim has expired, and returns them, the longest due first.

        Commit before working. A row that can't be read is left out: a newer version wrote it, and can claim
        it when this claim expires.
        """
        records = sorted(await tx.fetch(self._claim, limit), key=_due)
        return [
            Lease(row, Tries(record["attempts"], record["defects"], record["unknowns"], record["waited"]))
            for record, row in self._readable(records)
        ]

    async def announce(self, tx: Transaction, *, in_outage: bool) -> list[Overdue[RowT]]:
        """Returns rows that have waited for over a minute for a reason not announced yet, the oldest first.

        At most MAX_ANNOUNCED. Each row and reason is returned to one caller only, who announces it in the
        same transaction. Dead rows wait for a person. Claims neither matter nor change.
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
        """Renews the caller's claims. Returns the rows that still wait; the others are settled."""
        return {record["id"] for record in await tx.fetch(self._renew, sorted(ids))}

    async def release(self, tx: Transaction, ids: Sequence[UUID]) -> None:
        """Ends claims: any process can claim the rows at once."""
        await tx.execute(self._release, sorted(ids))

    async def defer(self, tx: Transaction, deferrals: Sequence[Deferral]) -> None:
        """Defers rows, or gives them up. Rows that no longer wait do not change."""
        ordered = sorted(deferrals, key=lambda deferral: deferral.id)
        rows = [(d.id, d.failure, storable(d.error, 1000), d.delay, d.state, d.attempts) for d in ordered]
        await tx.execute(self._defer, *statements.columns_of(rows, 6))


def _late(table: str, state: str, why: str) -> str:
    """SQL for rows (id, why) in this state that have waited for over a minute and are not announced."""
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
