"""The record of every mail: what it tells of, to whom, and how it ended."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import asyncpg
import msgspec
from sqlalchemy import Column, Index, LargeBinary, MetaData, Table, Text, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import TIMESTAMP, UUID

from events import envelope, statements
from events.contracts import AnyMilestone
from events.leases import Leases, claimed, lease_columns, lease_indexes
from events.text import storable
from events.transaction import Transaction
from services.email.domain import Mail, Outcome

METADATA: Final = MetaData()

MAILS: Final = Table(
    "mails",
    METADATA,
    Column("id", UUID, primary_key=True, comment="the id of the event that it tells of"),
    Column("order_id", UUID, nullable=False),
    Column("stage", Text, nullable=False, comment="the event's type"),
    Column("recipient", Text, nullable=False),
    Column("event", LargeBinary, nullable=False, comment="the event as JSON; empty once the mail is old"),
    Column("written_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    *lease_columns(),
    Column("message_id", Text),
    Column("outcome", Text, comment="what the mail server said"),
    Column("sent_at", TIMESTAMP(timezone=True)),
    UniqueConstraint("order_id", "stage", name="mails_one_per_order_and_stage"),
    *lease_indexes("mails", "pending"),
    Index(
        "mails_with_event",
        "written_at",
        postgresql_where=text("state IN ('sent', 'refused') AND event <> ''"),
    ),
    Index("mails_given_up", "claimed_until", postgresql_where=text("state = 'refused' AND outcome IS NULL")),
)
"""State: `pending`, then `sent`, `refused` (the server will never take it) or `dead` (we failed at it).

A mail that is refused without an `outcome` was put off for so long that it was given up.
"""

_EVENT: Final = msgspec.json.Decoder(AnyMilestone)
_COLUMNS: Final = ("id", "order_id", "stage", "recipient", "event")
_INSERT: Final = statements.insert(
    MAILS,
    _COLUMNS,
    computed={"state": "'pending'", "claimed_until": claimed()},
    then="ON CONFLICT DO NOTHING RETURNING id",
)
_ENDED: Final = ("id", "state", "message_id", "outcome")
_SETTLE: Final = f"""
    UPDATE mails SET state = row.state, message_id = row.message_id, outcome = row.outcome,
        sent_at = CASE WHEN row.state = 'sent' THEN now() END
    FROM {statements.rows(MAILS, _ENDED)}
    WHERE mails.id = row.id AND mails.state = 'pending'"""  # noqa: S608  # names of our own columns

_EMPTY: Final = """
    UPDATE mails SET event = '' WHERE id IN (
        SELECT id FROM mails
        WHERE state IN ('sent', 'refused') AND event <> '' AND written_at < now() - $1::interval
        ORDER BY written_at LIMIT $2 FOR UPDATE SKIP LOCKED)
    RETURNING id"""


def _read(record: asyncpg.Record) -> Mail:
    return Mail(record["id"], _EVENT.decode(record["event"]))


LEASES: Final[Leases[Mail]] = Leases(MAILS, _read, waiting="pending", columns=("id", "event"))


async def add(tx: Transaction, mails: Sequence[Mail]) -> list[Mail]:
    """Writes the mails down, born claimed, and returns those that are new: one per order and stage."""
    ordered = sorted(mails, key=lambda mail: mail.id)
    records = [(m.id, m.order.id, m.stage, m.recipient, envelope.encode_one(m.event)) for m in ordered]
    columns = statements.columns_of(records, len(_COLUMNS))
    new = await tx.fetch_keys(_INSERT, *columns, expected=[mail.id for mail in ordered])
    return [mail for mail in ordered if mail.id in new]


async def settle(tx: Transaction, ended: Sequence[tuple[Mail, Outcome]], domain: str) -> None:
    """Records how mails ended. One that another process settled meanwhile stays as it is.

    `domain` is the one that their Message-IDs were made with.
    """
    records = [(m.id, outcome.state, m.message_id(domain), storable(outcome.answer)) for m, outcome in ended]
    await tx.execute(_SETTLE, *statements.columns_of(sorted(records), len(_ENDED)))


async def empty(tx: Transaction, lifetime: timedelta, limit: int) -> int:
    """Takes the event out of ended mails that are older than that, at most `limit`, and returns how many."""
    return len(await tx.fetch(_EMPTY, lifetime, limit))
