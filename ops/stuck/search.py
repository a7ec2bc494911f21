"""The search for stuck orders: a few queries, each over all of them at once."""

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

MOST: Final = 1000
"""Most orders that are looked into: the longest stuck come first."""
GIVEN_UP_TOLD: Final = timedelta(days=7)
"""How long a mail is listed that the mail server has put off until it was given up."""


def _given_up(mail: str) -> str:
    """SQL: whether a mail was given up lately because the mail server has put it off, and not by a person."""
    return f"""{mail}.state = 'refused' AND {mail}.outcome IS NULL
        AND {mail}.claimed_until > now() - interval '{GIVEN_UP_TOLD.days} days'
        AND NOT EXISTS (
            SELECT FROM email.interventions i WHERE i.event_id = {mail}.id AND i.act = 'discard')"""


_A_MINUTE: Final = timedelta(seconds=DELAYED_AFTER)

_STANDING: Final = f"""
    SELECT o.id, o.reference, o.created_at, stands.type AS status, stands.time AS reached_at
    FROM "order".orders o
    JOIN LATERAL (SELECT type, time FROM "order".timeline t WHERE t.order_id = o.id
        ORDER BY array_position(ARRAY{list(RANKS)}, type) DESC NULLS LAST LIMIT 1) stands ON true"""
_LATE: Final = f"""
    SELECT id, reference, created_at, status, reached_at AS since FROM ({_STANDING}
        WHERE NOT EXISTS (SELECT FROM "order".timeline t WHERE t.order_id = o.id
            AND t.type NOT IN (SELECT unnest($1::text[])))) standing
    JOIN unnest($1::text[], $2::interval[]) AS each (status, deadline) USING (status)
    WHERE reached_at < now() - deadline ORDER BY since LIMIT {MOST}"""
_WORK_OF: Final = (
    # table, what its rows are called, the kind of waiting
    ("billing.payments", "'payment'", "payment"),
    ("billing.refunds", "'refund'", "refund"),
    ("shipment.shipments", "'booking'", "booking"),
)
_ROWS: Final = " UNION ALL ".join(
    [
        f"""
        SELECT order_id, waits_since FROM {table}
        WHERE state = 'pending' AND (last_failure IS NOT NULL OR delayed_for IS NOT NULL)
        UNION ALL SELECT order_id, waits_since FROM {table} WHERE state = 'dead'"""
        for table, _, _ in _WORK_OF
    ]
    + [
        f"""
        SELECT order_id, waits_since FROM {service}.parked WHERE state = 'retry'
        UNION ALL SELECT order_id, waits_since FROM {service}.parked WHERE state = 'dead'"""
        for service in dict.fromkeys(stage.service for stage in STAGES)
    ]
)
_DELAYED: Final = f"""
    SELECT standing.id, reference, created_at, status, reached_at AS since
    FROM (SELECT DISTINCT order_id FROM ({_ROWS}) work WHERE waits_since < now() - $1::interval) delayed
    JOIN ({_STANDING}) standing ON standing.id = delayed.order_id
    WHERE status = ANY($2::text[]) ORDER BY since LIMIT {MOST}"""
"""Orders that are held up: work of theirs has waited for so long, and failed, or is announced as delayed."""
_WITH_LATE_MAILS: Final = f"""
    SELECT standing.*, mails.since FROM (
        SELECT order_id, min(written_at) AS since FROM (
            SELECT order_id, written_at FROM email.mails
            WHERE state = 'pending' AND written_at < now() - $1::interval
            UNION ALL SELECT order_id, written_at FROM email.mails
            WHERE state = 'dead' AND written_at < now() - $1::interval
            UNION ALL SELECT order_id, written_at FROM email.mails m WHERE {_given_up("m")}) late
        GROUP BY order_id ORDER BY since LIMIT {MOST}) mails
    JOIN ({_STANDING}) standing ON standing.id = mails.order_id"""

_CARRYING_ON: Final = ", ".join(f"'{status}'" for status in RANKS)
"""The types of the events that take an order further: not that of a delay."""

_UNPUBLISHED: Final = " UNION ALL ".join(
    f"""
    SELECT late.id AS order_id, 'publishing' AS kind, '{service}' AS service, type, NULL::uuid AS id,
        created_at AS since, attempts, last_error AS error, claimed_until AS next_try
    FROM "{service}".outbox JOIN late ON late.id = ANY(order_ids)
    WHERE state = 'pending' AND type IN ({_CARRYING_ON})"""
    for service in SERVICES
)
_UNHANDLED: Final = " UNION ALL ".join(
    f"""
    SELECT late.id, 'handling', '{feed.listener}', m.type, e.event_id, m.published_at, 0, NULL, NULL
    FROM "{feed.publisher}".outbox m, unnest(m.event_ids, m.order_ids) AS e (event_id, order_id)
    JOIN late ON late.id = e.order_id
    WHERE m.id >= $2 AND m.state = 'published' AND m.type IN ({_CARRYING_ON})
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
        coalesce(w.last_error, (SELECT said.last_error FROM {table} said WHERE said.state = 'pending'
            AND said.last_failure = 'outage' AND 'outage' = ANY(w.delayed_for)
            ORDER BY said.claimed_until DESC LIMIT 1)),
        CASE w.state WHEN 'pending' THEN w.claimed_until END
    FROM {table} w JOIN late ON late.id = w.order_id WHERE {which}"""
    for table, name, kind, which in (
        *((*work, "w.state IN ('pending', 'dead')") for work in _WORK_OF),
        (
            *("email.mails", "w.stage", "mail"),
            f"w.state IN ('pending', 'dead') OR {_given_up('w')}",
        ),
    )
)
"""Work that was not tried itself waits for the end of the outage that other work has met."""
_WAITING: Final = f"""
    WITH late AS MATERIALIZED (SELECT unnest($1::uuid[]) AS id)
    {_UNPUBLISHED} UNION ALL {_UNHANDLED} UNION ALL {_PARKED} UNION ALL {_WORK}
    ORDER BY since"""


async def stuck_orders(
    connection: "asyncpg.Connection[Any]", *, older_than: timedelta | None = None
) -> list[StuckOrder]:
    """The orders that are stuck, the longest first, at most MOST of them.

    An order is stuck when it has not moved on within its stage's deadline; when work that carries it on has
    failed, or is announced as delayed, for over a minute; when it waits for a person; or when a mail about it
    is late, or was given up lately. `older_than` stands in for each of these times.
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
        for row in sorted(late.values(), key=lambda row: row["since"])[:MOST]
    ]


def _waits(order: asyncpg.Record, found: Sequence[Waiting]) -> tuple[Waiting, ...]:
    """What was found; for an order that is not at its end and waits for no known thing, that."""
    if found or order["status"] not in DEADLINES:
        return tuple(found)
    return (Waiting("nothing", "order", order["status"], None, order["since"], 0, None, None),)
