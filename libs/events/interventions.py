"""Interventions: what people did to a service's events by hand, so that every act can be accounted for.

A row is written in the transaction of the act itself.
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
"""`replay`: dead work was put back. `discard`: it was given up. `refill`: events came from the outboxes.
`record`: what a person did outside the system was written down, such as a refund. `restore`: what an older
database had lost was settled after it was brought back."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What an act was about, as far as it was about one thing."""

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
    """Writes down that `actor` did this to each of the subjects."""
    rows = [
        (storable(actor), act, s.id, s.type, s.order_id, s.reason, s.error, note and storable(note))
        for s in subjects
    ]
    await tx.execute(_INSERT, *statements.columns_of(rows, len(_COLUMNS)))
