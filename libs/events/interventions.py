"""Interventions: the record of what people did to a service's events by hand.

A row is written in the transaction of the act.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import BigInteger, Column, Identity, Table, Text, func
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import TIMESTAMP

from events import statements
from events.tables import METADATA
from events.text import storable
from events.transaction import Transaction

INTERVENTIONS: Final = Table(
    "interventions",
    METADATA,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    Column("actor", Text, nullable=False, comment="who did it: the account on the operating system"),
    Column("act", Text, nullable=False),
    Column("event_id", postgresql.UUID, comment="of the event, or of the row of work"),
    Column("type", Text),
    Column("order_id", postgresql.UUID),
    Column("reason", Text, comment="why it was dead"),
    Column("error", Text),
    Column("note", Text),
)

Act = Literal["replay", "discard", "refill", "record", "restore"]
"""`replay`: dead work is tried again. `discard`: dead work is given up. `refill`: events are replayed from
the outboxes. `record`: a person did something outside the system, such as a refund. `restore`: a gap of a
restored
database is settled."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The event or work that an act was about."""

    id: UUID | None = None
    type: str | None = None
    order_id: UUID | None = None
    reason: str | None = None
    error: str | None = None


_COLUMNS: Final = ("actor", "act", "event_id", "type", "order_id", "reason", "error", "note")
_INSERT: Final = statements.insert(INTERVENTIONS, _COLUMNS)


async def record(
    tx: Transaction, act: Act, subjects: Sequence[Subject], *, actor: str, note: str | None = None
) -> None:
    """Records that `actor` did this to each of the subjects."""
    rows = [
        (storable(actor), act, s.id, s.type, s.order_id, s.reason, s.error, note and storable(note))
        for s in subjects
    ]
    await tx.execute(_INSERT, *statements.columns_of(rows, len(_COLUMNS)))
