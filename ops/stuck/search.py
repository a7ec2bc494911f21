"""Finds stuck orders with a few queries, each over all orders at once."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from events.delays import DELAYED_AFTER
from events.journey import DEADLINES, MAIL_DEADLINE, RANKS, STAGES
from events.partitions import first_id
from ops.services import SERVICES
from ops.stuck.waiting import StuckOrder, Waiting
from ops.subscriptions import subscriptions

MAX_ORDERS: Final = 1000
"""Most orders that are listed: those stuck for the longest time."""
GIVEN_UP_LISTED_FOR: Final = timedelta(days=7)
"""How long a mail that was given up after deferrals is listed."""


def _given_up(mail: str) -> str:
    """SQL condition: the mail was given up lately after deferrals, and not discarded by an operator."""
    return f"""{mail}.state = 'refused' AND {mail}.outcome IS NULL
        AND {mail}.claimed_until > now() - interval '{GIVEN_UP_LISTED_FOR.days} days'
        AND NOT EXISTS (
            SELECT FROM email.interventions i WHERE i.event_id = {mail}.id AND i.act = 'discard')"""


_A_MINUTE: Final = timedelta(seconds=DELAYED_AFTER)

_ORDERS: Final = f"""
    SELECT o.id, o.reference, o.created_at, furthest.type AS status, furthest.time AS reached_at
    FROM "order".orders o
    JOIN LATERAL (SELECT type, time FROM "order".timeline t WHERE t.order_id = o.id
        ORDER BY array_position(ARRAY{list(RANKS)}, type) DESC NULLS LAST LIMIT 1) furthest ON true"""
_LATE: Final = f"""
    SELECT id, reference, created_at, status, reached_at AS since FROM ({_ORDERS}
        WHERE NOT EXISTS (SELECT FROM "order".timeline t WHERE t.order_id = o.id
            AND t.type NOT IN (SELECT unnest($1::text[])))) orders
    JOIN unnest($1::text[], $2::interval[]) AS each (status, deadline) USING (status)
    WHERE reached_at < now() - deadline ORDER BY since LIMIT {MAX_ORDERS}"""
_STAGE_WORK: Final = (
    # table, SQL for what a row is called, kind of waiting
    ("billing.payments", "'payment'", "payment"),
    ("billing.refunds", "'refund'", "refund"),
    ("shipment.shipments", "'booking'", "booking"),
)
_FAILED_ROWS: Final = " UNION ALL ".join(
    [
        f"""
        SELECT order_id, waits_since FROM {table}
        WHERE state = 'pending' AND (last_failure IS NOT NULL OR delayed_for IS NOT NULL)
        UNION ALL SELECT order_id, waits_since FROM {table} WHERE state = 'dead'"""
        for table, _, _ in _STAGE_WORK
    ]
    + [
        f"""
        SELECT order_id, waits_since FROM {service}.parked WHERE state = 'retry'
        UNION ALL SELECT order_id, waits_since FROM {service}.parked WHERE state = 'dead'"""
        for service in dict.fromkeys(stage.service for stage in STAGES)
    ]
)
_DELAYED: Final = f"""
    SELECT orders.id, reference, created_at, status, reached_at AS since
    FROM (SELECT DISTINCT order_id FROM ({_FAILED_ROWS}) failed
        WHERE waits_since < now() - $1::interval) delayed
    JOIN ({_ORDERS}) orders ON orders.id = delayed.order_id
    WHERE status = ANY($2::text[]) ORDER BY since LIMIT {MAX_ORDERS}"""
"""Delayed orders: their work has waited for at least $1, and has failed or was announced as delayed."""
_WITH_LATE_MAILS: Final = f"""
    SELECT orders.*, mails.since FROM (
        SELECT order_id, min(written_at) AS since FROM (
            SELECT order_id, written_at FROM email.mails
            WHERE state = 'pending' AND written_at < now() - $1::interval
            UNION ALL SELECT order_id, written_at FROM email.mails
            WHERE state = 'dead' AND written_at < now() - $1::interval
            UNION ALL SELECT order_id, written_at FROM email.mails m WHERE {_given_up("m")}) late
        GROUP BY order_id ORDER BY since LIMIT {MAX_ORDERS}) mails
    JOIN ({_ORDERS}) orders ON orders.id = mails.order_id"""

_ADVANCING: Final = ", ".join(f"'{status}'" for status in RANKS)
"""The types of the events that advance an order; a delay does not."""

_UNPUBLISHED: Final = " UNION ALL ".join(
    f"""
    SELECT late.id AS order_id, 'publishing' AS kind, '{service}' AS service, type, NULL::uuid AS id,
        created_at AS since, attempts, last_error AS error, claimed_until AS next_try
    FROM "{service}".outbox JOIN late ON late.id = ANY(order_ids)
    WHERE state = 'pending' AND type IN ({_ADVANCING})"""
    for service in SERVICES
)
_UNHANDLED: Final = " UNION ALL ".join(
    f"""
    SELECT late.id, 'handling', '{feed.listener}', m.type, e.event_id, m.published_at, 0, NULL, NULL
    FROM "{feed.publisher}".outbox m, unnest(m.event_ids, m.order_ids) AS e (event_id, order_id)
    JOIN late ON late.id = e.order_id
    WHERE m.id >= $2 AND m.state = 'published' AND m.type IN ({_ADVANCING})
        AND m.type IN ({", ".join(f"'{each}'" for each in feed.types)})
        AND NOT EXISTS (SELECT FROM "{feed.listener}".inbox i WHERE i.event_id = e.event_id OFFSET 0)"""
    for feed in subscriptions()
)
_PARKED: Final = " UNION ALL ".join(
    f"""
    SELECT late.id, p.state, '{service}', p.type, p.id, p.first_failed_at, p.attempts, p.last_error,
        CASE p.state WHEN 'retry' THEN p.claimed_until END
    FROM "{service}".parked p JOIN late ON late.id = p.order_id"""
    for service in SERVICES
)
_WORK: Final = " UNION ALL ".join(
    f"""
    SELECT late.id, CASE w.state WHEN 'pending' THEN '{kind}' WHEN 'dead' THEN 'dead work'
            ELSE 'mail given up' END,
        '{table.partition(".")[0]}', {name}, w.id, w.waits_since, w.attempts,
        coalesce(w.last_error, (SELECT tried.last_error FROM {table} tried WHERE tried.state = 'pending'
            AND tried.last_failure = 'outage' AND 'outage' = ANY(w.delayed_for)
            ORDER BY tried.claimed_until DESC LIMIT 1)),
        CASE w.state WHEN 'pending' THEN w.claimed_until END
    FROM {table} w JOIN late ON late.id = w.order_id WHERE {which}"""
    for table, name, kind, which in (
        *((*work, "w.state IN ('pending', 'dead')") for work in _STAGE_WORK),
        (
            *("email.mails", "w.stage", "mail"),
            f"w.state IN ('pending', 'dead') OR {_given_up('w')}",
        ),
    )
)
"""A row that an outage kept from being tried shows the error of the row that met the outage."""
_WAITING: Final = f"""
    WITH late AS MATERIALIZED (SELECT unnest($1::uuid[]) AS id)
    {_UNPUBLISHED} UNION ALL {_UNHANDLED} UNION ALL {_PARKED} UNION ALL {_WORK}
    ORDER BY since"""


async def stuck_orders(
    connection: "asyncpg.Connection[Any]", *, older_than: timedelta | None = None
) -> list[StuckOrder]:
    """The stuck orders, the longest stuck first, at most MAX_ORDERS.

    An order is stuck if it has not advanced within its stage's deadline; if work that advances it has failed,
    or is announced as delayed, for over a minute; if it waits for an operator; or if a mail about it is late,
    or was given up lately. `older_than` replaces each of these times.
    """
    deadlines = [older_than or deadline for deadline in DEADLINES.values()]
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        late = {
            row["id"]: row
            for row in (
                *await connection.fetch(_WITH_LATE_MAILS, older_than or MAIL_DEADLINE),
                *await connection.fetch(_DELAYED, older_than or _A_MINUTE, list(DEADLINES)),
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
        for row in sorted(late.values(), key=lambda row: row["since"])[:MAX_ORDERS]
    ]


def _waits(order: asyncpg.Record, found: Sequence[Waiting]) -> tuple[Waiting, ...]:
    """The order's known waits. The kind `nothing` stands for an order that should advance and has none."""
    if found or order["status"] not in DEADLINES:
        return tuple(found)
    return (Waiting("nothing", "order", order["status"], None, order["since"], 0, None, None),)
