"""The table of mails: one row per order and stage, settled once."""

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
from services.email.domain import Mail

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
"""`state` is `pending`, then `sent`, `refused` (the server will never take it) or `dead` (set aside for a
person after defects or unknown outcomes).

A refused mail without an `outcome` was postponed until its retries ended.
"""

_EVENT: Final = msgspec.json.Decoder(AnyMilestone)
_COLUMNS: Final = ("id", "order_id", "stage", "recipient", "event")
_INSERT: Final = statements.insert(
    MAILS,
    _COLUMNS,
    computed={"state": "'pending'", "claimed_until": claimed()},
    then="ON CONFLICT DO NOTHING RETURNING id",
)
_OUTCOME: Final = ("id", "state", "message_id", "outcome")
_SETTLE: Final = f"""
    UPDATE mails SET state = row.state, message_id = row.message_id, outcome = row.outcome,
        sent_at = CASE WHEN row.state = 'sent' THEN now() END
    FROM {statements.rows(MAILS, _OUTCOME)}
    WHERE mails.id = row.id AND mails.state = 'pending' RETURNING mails.id"""  # noqa: S608  # our own names

_REMOVE_EVENTS: Final = """
    UPDATE mails SET event = '' WHERE id IN (
        SELECT id FROM mails
        WHERE state IN ('sent', 'refused') AND event <> '' AND written_at < now() - $1::interval
        ORDER BY written_at LIMIT $2 FOR UPDATE SKIP LOCKED)
    RETURNING id"""


def _read(record: asyncpg.Record) -> Mail:
    return Mail(record["id"], _EVENT.decode(record["event"]))


PENDING_MAILS: Final = Leases(MAILS, _read, waiting="pending", columns=("id", "event"))


async def add(tx: Transaction, mails: Sequence[Mail]) -> list[Mail]:
    """Inserts the mails, born claimed, whose order has none of this stage yet, and returns these."""
    ordered = sorted(mails, key=lambda mail: mail.id)
    records = [(m.id, m.order.id, m.stage, m.recipient, envelope.encode_one(m.event)) for m in ordered]
    columns = statements.columns_of(records, len(_COLUMNS))
    new = await tx.fetch_keys(_INSERT, *columns, expected=[mail.id for mail in ordered])
    return [mail for mail in ordered if mail.id in new]


async def settle(tx: Transaction, mails: Sequence[Mail], domain: str) -> list[Mail]:
    """Stores the outcomes of the mails and returns those that were pending until now.

    `domain` is that of their Message-IDs.
    """
    ordered = sorted(mails, key=lambda mail: mail.id)
    records = [
        (mail.id, mail.outcome.state, mail.message_id(domain), storable(mail.outcome.answer))
        for mail in ordered
        if mail.outcome
    ]
    ids, *columns = statements.columns_of(records, len(_OUTCOME))
    settled = await tx.fetch_keys(_SETTLE, ids, *columns, expected=ids)
    return [mail for mail in ordered if mail.id in settled]


async def remove_events(tx: Transaction, lifetime: timedelta, limit: int) -> int:
    """Removes the event from mails sent or refused and older than that, at most `limit`; returns how many."""
    return len(await tx.fetch(_REMOVE_EVENTS, lifetime, limit))
