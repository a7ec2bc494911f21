"""The search for stuck orders: a few queries, each over all of them at once."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from events.contracts import RANKS
from events.partitions import first_id
from ops.feeds import feeds
from ops.services import SERVICES
from ops.stuck.waiting import DEADLINES, MAIL_DEADLINE, StuckOrder, Waiting

MOST: Final = 1000
"""Most orders that are looked into: the longest stuck come first."""

_STANDING: Final = f"""
    SELECT o.id, o.reference, o.created_at, stands.type AS status, stands.time AS reached_at
    FROM "order".orders o
    JOIN LATERAL (SELECT type, time FROM "order".timeline t WHERE t.order_id = o.id
        ORDER BY array_position(ARRAY{list(RANKS)}, type) DESC LIMIT 1) stands ON true"""
_LATE: Final = f"""
    SELECT id, reference, created_at, status, reached_at AS since FROM ({_STANDING}
        WHERE NOT EXISTS (SELECT FROM "order".timeline t WHERE t.order_id = o.id
            AND t.type NOT IN (SELECT unnest($1::text[])))) standing
    JOIN unnest($1::text[], $2::interval[]) AS each (status, deadline) USING (status)
    WHERE reached_at < now() - deadline ORDER BY since LIMIT {MOST}"""
_WITH_LATE_MAILS: Final = f"""
    SELECT standing.*, mails.since FROM (
        SELECT order_id, min(written_at) AS since FROM email.mails
        WHERE state IN ('pending', 'dead') AND written_at < now() - $1::interval
        GROUP BY order_id ORDER BY since LIMIT {MOST}) mails
    JOIN ({_STANDING}) standing ON standing.id = mails.order_id"""

_UNPUBLISHED: Final = " UNION ALL ".join(
    f"""
    SELECT late.id AS order_id, 'publishing' AS kind, '{service}' AS service, type, NULL::uuid AS id,
        created_at AS since, attempts, last_error AS error
    FROM "{service}".outbox JOIN late ON late.id = ANY(order_ids) WHERE state = 'pending'"""
    for service in SERVICES
)
_UNHANDLED: Final = " UNION ALL ".join(
    f"""
    SELECT late.id, 'handling', '{feed.listener}', m.type, e.event_id, m.published_at, 0, NULL
    FROM "{feed.publisher}".outbox m, unnest(m.event_ids, m.order_ids) AS e (event_id, order_id)
    JOIN late ON late.id = e.order_id
    WHERE m.id >= $2 AND m.state = 'published' AND m.type IN ({", ".join(f"'{each}'" for each in feed.types)})
        AND NOT EXISTS (SELECT FROM "{feed.listener}".inbox i WHERE i.event_id = e.event_id OFFSET 0)"""
    for feed in feeds()
)
_PARKED: Final = " UNION ALL ".join(
    f"""
    SELECT late.id, p.state, '{service}', p.type, p.id, p.first_failed_at, p.attempts, p.last_error
    FROM "{service}".parked p JOIN late ON late.id = p.order_id"""
    for service in SERVICES
)
_WORK: Final = " UNION ALL ".join(
    f"""
    SELECT late.id, CASE w.state WHEN 'dead' THEN 'dead work' ELSE '{kind}' END, '{service}', {name}, w.id,
        w.{since}, w.attempts, w.last_error
    FROM {service}.{table} w JOIN late ON late.id = w.order_id WHERE w.state IN ('pending', 'dead')"""
    for kind, service, table, name, since in (
        ("payment", "billing", "payments", "'payment'", "created_at"),
        ("refund", "billing", "refunds", "'refund'", "created_at"),
        ("booking", "shipment", "shipments", "'booking'", "created_at"),
        ("mail", "email", "mails", "w.stage", "written_at"),
    )
)
_WAITING: Final = f"""
    WITH late AS MATERIALIZED (SELECT unnest($1::uuid[]) AS id)
    {_UNPUBLISHED} UNION ALL {_UNHANDLED} UNION ALL {_PARKED} UNION ALL {_WORK}
    ORDER BY since"""


async def stuck_orders(
    connection: "asyncpg.Connection[Any]", *, older_than: timedelta | None = None
) -> list[StuckOrder]:
    """The orders that are stuck, the longest first, at most MOST of them.

    `older_than` stands in for the deadline of every status, and for that of mails.
    """
    deadlines = [older_than or deadline for deadline in DEADLINES.values()]
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        late = {
            row["id"]: row
            for row in (
                *await connection.fetch(_WITH_LATE_MAILS, older_than or MAIL_DEADLINE),
                *await connection.fetch(_LATE, list(DEADLINES), deadlines),
            )
        }
        if not late:
            return []
        oldest = first_id(min(row["created_at"] for row in late.values()))
        waiting = await connection.fetch(_WAITING, list(late), oldest)
    by_order: dict[UUID, list[Waiting]] = defaultdict(list)
    for row in waiting:
        fields = {name: value for name, value in row.items() if name != "order_id"}
        by_order[row["order_id"]].append(Waiting(**fields))
    return [
        StuckOrder(row["id"], row["reference"], row["status"], row["since"], _waits(row, by_order[row["id"]]))
        for row in sorted(late.values(), key=lambda row: row["since"])[:MOST]
    ]


def _waits(order: asyncpg.Record, found: Sequence[Waiting]) -> tuple[Waiting, ...]:
    """What was found; an order that waits for nothing is told to do so, unless it is at its end."""
    if found or order["status"] not in DEADLINES:
        return tuple(found)
    return (Waiting("nothing", "order", order["status"], None, order["since"], 0, None),)
