"""Leases: the one mechanism for everything that must happen later.

Work that outlives its transaction is a row. It is born claimed for a few seconds by the process that made it,
and done straight from memory after the commit; what a crash left behind is claimed by anyone once
`claimed_until` has passed. The claim commits before the work. The database's clock decides.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar
from uuid import UUID

import asyncpg
import msgspec
from sqlalchemy import Column, Index, Integer, Table, Text, func, text
from sqlalchemy.dialects.postgresql import TIMESTAMP

from events import statements
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


R = TypeVar("R", bound=Leased)


def lease_columns() -> list[Column[Any]]:
    """The columns that make a table's rows claimable.

    `claimed_until`: nobody else works on the row before; also when a deferred row is due. `attempts`: failed
    tries, outages left out; `defects` and `unknowns` are those of two kinds. `waits_since`: when the row was
    written, or given another chance by a person. `last_error`: why the last try failed.
    """
    return [
        Column("state", Text, nullable=False),
        Column("claimed_until", TIMESTAMP(timezone=True), nullable=False),
        Column("attempts", Integer, nullable=False, server_default=text("0")),
        Column("defects", Integer, nullable=False, server_default=text("0")),
        Column("unknowns", Integer, nullable=False, server_default=text("0")),
        Column("waits_since", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
        Column("last_error", Text),
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
class Lease(Generic[R]):
    """A claimed row, and how often it was tried before."""

    row: R
    tries: Tries = FRESH


@dataclass(frozen=True, slots=True)
class Deferral:
    """A row whose try failed: due again after `delay` seconds, or given up as `state`."""

    id: UUID
    failure: Failure
    error: str
    delay: float
    state: str | None = None


class Leases(Generic[R]):
    """Claims on the rows of one table that are in the waiting state."""

    def __init__(
        self, table: Table, read: Callable[[asyncpg.Record], R], *, waiting: str, columns: Collection[str]
    ) -> None:
        """`columns` are what `read` needs beside the counters."""
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
            UPDATE {table.name} AS t SET last_error = row.error,
                attempts = t.attempts + (row.failure <> 'outage')::int,
                defects = t.defects + (row.failure = 'defect')::int,
                unknowns = t.unknowns + (row.failure = 'unknown')::int,
                claimed_until = now() + make_interval(secs => row.delay),
                state = coalesce(row.state, t.state)
            FROM unnest($1::uuid[], $2::text[], $3::text[], $4::float8[], $5::text[])
                AS row (id, failure, error, delay, state)
            WHERE t.id = row.id AND t.state = '{waiting}'"""  # noqa: S608

    async def claim(self, tx: Transaction, limit: int) -> list[Lease[R]]:
        """At most `limit` rows whose claim has run out, now claimed by the caller: longest due first.

        Commit before working. A row that this code can't read is left out: a newer version wrote it, and
        takes it once this claim has run out.
        """
        leases: list[Lease[R]] = []
        for record in sorted(await tx.fetch(self._claim, limit), key=_due):
            try:
                row = self._read(record)
            except msgspec.MsgspecError as error:
                logger.warning("%s %s is left to a newer version: %s", self.table, record["id"], error)
                continue
            tries = Tries(record["attempts"], record["defects"], record["unknowns"], record["waited"])
            leases.append(Lease(row, tries))
        return leases

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


def _due(record: asyncpg.Record) -> tuple[Any, ...]:
    return record["due_at"], record["id"]
