"""The table of shipments: one row per paid order, settled once."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg
import msgspec
from sqlalchemy import Column, LargeBinary, MetaData, Table, Text, UniqueConstraint, func
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import TIMESTAMP
from uuid_utils.compat import uuid7

from events import statements
from events.contracts import Dispatched, Paid, Undeliverable
from events.leases import Leases, claimed, lease_columns, lease_indexes
from events.transaction import Transaction
from services.shipment.domain import Shipment

METADATA: Final = MetaData()

SHIPMENTS: Final = Table(
    "shipments",
    METADATA,
    Column("id", postgresql.UUID, primary_key=True),
    Column("order_id", postgresql.UUID, nullable=False),
    Column("paid", LargeBinary, nullable=False, comment="the data of PAYMENT_CONFIRMED, as JSON"),
    Column("created_at", TIMESTAMP(timezone=True), nullable=False, server_default=func.now()),
    *lease_columns(),
    Column("settled_at", TIMESTAMP(timezone=True)),
    Column("carrier", Text),
    Column("tracking_number", Text),
    Column("booked_at", TIMESTAMP(timezone=True)),
    Column("reason_code", Text),
    Column("reason_message", Text),
    UniqueConstraint("order_id", name="one_shipment_per_order"),
    UniqueConstraint("tracking_number", name="one_shipment_per_tracking_number"),
    *lease_indexes("shipments", "pending"),
)
"""`state` is `pending`, then `shipped` or `refused`; `dead` if a defect kept it from both."""

_ADD: Final = statements.insert(
    SHIPMENTS,
    ("id", "order_id", "paid"),
    computed={"state": "'pending'", "claimed_until": claimed()},
    then="ON CONFLICT (order_id) DO NOTHING RETURNING id",
)
_OUTCOME: Final = (
    "id",
    "state",
    "carrier",
    "tracking_number",
    "booked_at",
    "reason_code",
    "reason_message",
)
_SETTLE: Final = f"""
    UPDATE shipments AS shipment SET settled_at = now(), last_error = NULL,
        {", ".join(f"{name} = row.{name}" for name in _OUTCOME[1:])}
    FROM {statements.rows(SHIPMENTS, _OUTCOME)}
    WHERE shipment.id = row.id AND shipment.state = 'pending' RETURNING shipment.id"""  # noqa: S608

_encoder = msgspec.json.Encoder()
_paid = msgspec.json.Decoder(Paid)


def _read(record: asyncpg.Record) -> Shipment:
    return Shipment(id=record["id"], paid=_paid.decode(record["paid"]))


PENDING_SHIPMENTS: Final = Leases(SHIPMENTS, _read, waiting="pending", columns=("id", "paid"))


async def add(tx: Transaction, paid_orders: Sequence[Paid]) -> list[Shipment]:
    """Inserts a shipment, born claimed, for each paid order that has none yet, and returns these."""
    shipments = {shipment.id: shipment for shipment in (Shipment(uuid7(), paid) for paid in paid_orders)}
    rows = sorted((s.paid.order.id, s.id, _encoder.encode(s.paid)) for s in shipments.values())
    order_ids, ids, snapshots = statements.columns_of(rows, 3)
    new = await tx.fetch_keys(_ADD, ids, order_ids, snapshots, expected=ids)
    return [shipments[shipment_id] for shipment_id in ids if shipment_id in new]


async def settle(tx: Transaction, shipments: Sequence[Shipment]) -> list[Shipment]:
    """Stores the outcomes of the shipments and returns those that were pending until now."""
    ordered = sorted(shipments, key=lambda shipment: shipment.id)
    rows = [(shipment.id, shipment.state, *_details(shipment.outcome)) for shipment in ordered]
    ids, *columns = statements.columns_of(rows, len(_OUTCOME))
    settled = await tx.fetch_keys(_SETTLE, ids, *columns, expected=ids)
    return [shipment for shipment in ordered if shipment.id in settled]


def _details(outcome: Dispatched | Undeliverable | None) -> tuple[str | datetime | None, ...]:
    """The columns of the outcome after `state`."""
    match outcome:
        case Dispatched(shipment=details):
            return details.carrier, details.tracking_number, details.booked_at, None, None
        case Undeliverable(reason=reason):
            return None, None, None, reason.code, reason.message
        case None:
            return None, None, None, None, None
