"""Leases: the one mechanism for everything that must happen later.

Work that outlives its transaction is a row. It is born claimed for a few seconds by the process that made
it, and done straight from memory after the commit; what a crash left behind is claimed by anyone once
`claimed_until` has passed. The claim commits before the work. The database's clock decides.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar
from uuid import UUID

import asyncpg
import msgspec
from sqlalchemy import Column, Index, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import TIMESTAMP

from events import statements
from events.transaction import Transaction

LEASE_SECONDS: Final = 15.0
"""How long a claim holds. Work on a claimed row ends well before that, by its own deadline."""

LONGEST_DELAY: Final = 30.0
"""Most seconds that a row is put off after a failure."""
MAX_FAILURES: Final = 8
"""Failures after which a mortal row is set aside as dead, for a person to look at."""


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
    ones. `last_error`: why the last one failed.
    """
    return [
        Column("state", Text, nullable=False),
        Column("claimed_until", TIMESTAMP(timezone=True), nullable=False),
        Column("attempts", Integer, nullable=False, server_default=text("0")),
        Column("last_error", Text),
    ]


def lease_index(table: str, state: str) -> Index:
    """The index that finds what is waiting; it holds only that."""
    return Index(f"{table}_waiting", "claimed_until", postgresql_where=text(f"state = '{state}'"))


def claimed() -> str:
    """SQL for `claimed_until` of a row that is born claimed."""
    return f"now() + interval '{LEASE_SECONDS} seconds'"


@dataclass(frozen=True, slots=True)
class Deferral:
    """A row put off, and why.

    With a `delay` (seconds) the failure is not counted against the row; without one it is, and the delay
    doubles with every attempt up to LONGEST_DELAY. A `mortal` row is set aside as `dead` at MAX_FAILURES.
    """

    id: UUID
    error: str
    delay: float | None = None
    mortal: bool = False


class Leases(Generic[R]):
    """Claims on the rows of one table that are in the waiting state."""

    def __init__(
        self, table: Table, read: Callable[[asyncpg.Record], R], *, waiting: str, columns: Collection[str]
    ) -> None:
        self.table = table.name
        self._read = read
        picked = ", ".join(f"t.{name}" for name in columns)
        self._claim = f"""
            WITH due AS MATERIALIZED (
                SELECT id FROM {table.name} WHERE state = '{waiting}' AND claimed_until < now()
                ORDER BY claimed_until LIMIT $1 FOR UPDATE SKIP LOCKED)
            UPDATE {table.name} AS t SET claimed_until = {claimed()} FROM due
            WHERE t.id = due.id AND t.state = '{waiting}' RETURNING {picked}"""  # noqa: S608
        self._release = f"""
            UPDATE {table.name} SET claimed_until = now()
            WHERE id = ANY($1::uuid[]) AND state = '{waiting}'"""  # noqa: S608
        self._defer = f"""
            UPDATE {table.name} AS t SET last_error = row.error,
                attempts = t.attempts + (row.delay IS NULL)::int,
                claimed_until = now() + make_interval(secs => coalesce(row.delay,
                    least({LONGEST_DELAY}, power(2, least(t.attempts, 10))) * (0.5 + random() / 2))),
                state = CASE WHEN row.mortal AND t.attempts + 1 >= {MAX_FAILURES} THEN 'dead' ELSE t.state END
            FROM unnest($1::uuid[], $2::text[], $3::float8[], $4::bool[]) AS row (id, error, delay, mortal)
            WHERE t.id = row.id AND t.state = '{waiting}'"""  # noqa: S608

    async def claim(self, tx: Transaction, limit: int) -> list[R]:
        """At most `limit` rows whose claim has run out, now claimed by the caller. Commit before working.

        A row that this code can't read is left out: a newer version wrote it, and takes it once this claim
        has run out.
        """
        rows: list[R] = []
        for record in await tx.fetch(self._claim, limit):
            try:
                rows.append(self._read(record))
            except msgspec.MsgspecError as error:
                logger.warning("%s %s is left to a newer version: %s", self.table, record["id"], error)
        return rows

    async def release(self, tx: Transaction, ids: Sequence[UUID]) -> None:
        """Gives claims back, for anyone to take at once."""
        await tx.execute(self._release, sorted(ids))

    async def defer(self, tx: Transaction, deferrals: Sequence[Deferral]) -> None:
        """Puts rows off. Rows that are no longer waiting stay as they are."""
        ordered = sorted(deferrals, key=lambda deferral: deferral.id)
        rows = [(d.id, d.error[:1000], d.delay, d.mortal) for d in ordered]
        await tx.execute(self._defer, *statements.columns_of(rows, 4))
