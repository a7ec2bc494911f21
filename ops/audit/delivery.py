"""What must hold of the events: each arrives, has its one effect, and is dropped by nobody."""

from collections.abc import Iterable, Sequence
from typing import Final

from events.contracts import OrderDelayed, type_of
from ops.audit.check import SETTLED, Check
from ops.feeds import feeds
from ops.services import SERVICES

_DELAYED: Final = type_of(OrderDelayed)

_EFFECTS: Final = {
    "order": f"""CASE e.type
        WHEN '{_DELAYED}' THEN EXISTS (SELECT FROM "order".delays x WHERE x.event_id = e.event_id)
            OR NOT EXISTS (SELECT FROM "order".orders o WHERE o.id = e.order_id)
        ELSE EXISTS (SELECT FROM "order".timeline x WHERE x.event_id = e.event_id) END""",
    "invoice": "EXISTS (SELECT FROM invoice.invoices x WHERE x.order_id = e.order_id)",
    "billing": """CASE e.type
        WHEN 'SHIPMENT_ERROR' THEN EXISTS (SELECT FROM billing.refunds x WHERE x.order_id = e.order_id)
        ELSE EXISTS (SELECT FROM billing.payments x WHERE x.order_id = e.order_id) END""",
    "shipment": "EXISTS (SELECT FROM shipment.shipments x WHERE x.order_id = e.order_id)",
    "email": "EXISTS (SELECT FROM email.mails x WHERE x.order_id = e.order_id AND x.stage = e.type)",
}
"""SQL that tells whether an event `e` (event_id, order_id, type) had its effect in a service.

A delay of an order that was never accepted has none.
"""

_UNIQUE: Final = {
    "invoice.invoices": "order_id",
    "billing.payments": "order_id",
    "billing.refunds": "order_id,cause",
    "shipment.shipments": "order_id",
    "email.mails": "order_id,stage",
    '"order".timeline': "order_id,event_id",
    '"order".delays': "order_id,event_id",
    '"order".idempotency_keys': "key",
}
"""The business key beside every inbox: whatever comes twice has one effect."""


def _announced(listener: str) -> str:
    """SQL for every event that a service listens to, with what is known of its message.

    Columns: event_id, order_id, type, published_at, state, claimed_until.
    """
    return " UNION ALL ".join(
        f"""SELECT event_id, order_id, type, published_at, state, claimed_until
            FROM "{feed.publisher}".outbox, unnest(event_ids, order_ids) AS event (event_id, order_id)
            WHERE type IN ({_listed(feed.types)})"""
        for feed in feeds()
        if feed.listener == listener
    )


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(f"'{text}'" for text in texts)


def on_its_way(listener: str) -> str:
    """SQL for the events (event_id, order_id, type) that are on their way to a service.

    They wait in an outbox or a queue, for as long as an outage takes. One that is lost in a queue is found by
    `arrived`; one that nobody publishes any more is not on its way.
    """
    return f"""
        SELECT e.event_id, e.order_id, e.type FROM ({_announced(listener)}) e
        WHERE (e.state = 'published' OR e.state = 'pending' AND e.claimed_until >= {SETTLED})
            AND NOT EXISTS (SELECT FROM "{listener}".inbox i WHERE i.event_id = e.event_id)"""


def arrived(listener: str) -> Check:
    """That everything announced has arrived at a service. Inboxes may have forgotten what is older."""
    return Check(
        "I13",
        f"Every event was handled or is parked by {listener}.",
        f"{{count}} events never arrived at {listener}, such as one of type {{detail}}.",
        f"""
        SELECT e.order_id, e.type AS detail FROM ({_announced(listener)}) e
        WHERE e.published_at < {SETTLED} AND e.published_at > now() - interval '29 days'
            AND NOT EXISTS (SELECT FROM "{listener}".inbox i WHERE i.event_id = e.event_id)""",
    )


def had_its_effect(listener: str) -> Check:
    """That everything taken over had its effect, or is parked."""
    return Check(
        "I16",
        f"Nothing that {listener} took over was dropped: it had its effect, or is parked with its reason.",
        f"{{count}} events were taken over by {listener} and dropped, such as one of type {{detail}}.",
        f"""
        SELECT e.order_id, e.type AS detail FROM ({_announced(listener)}) e
        JOIN "{listener}".inbox i ON i.event_id = e.event_id
        WHERE NOT ({_EFFECTS[listener]})
            AND NOT EXISTS (SELECT FROM "{listener}".parked p WHERE p.id = e.event_id)""",
    )


def _taken_over(listener: str, effects: str) -> Check:
    """That nothing had an effect in a service without being taken over, so that it could have it again."""
    return Check(
        "I14",
        f"Every effect in {listener} belongs to an event that its inbox knows.",
        f"{{count}} effects in {listener} are of events that its inbox does not know, such as of {{detail}}.",
        f"""
        SELECT x.order_id, x.type AS detail FROM ({effects}) x
        WHERE x.at > now() - interval '29 days'
            AND NOT EXISTS (SELECT FROM "{listener}".inbox i WHERE i.event_id = x.event_id)""",
    )


UNIQUE_KEYS: Final = Check(
    "I14",
    "A unique business key stands beside every inbox.",
    "{count} unique keys are missing, such as that of {detail}.",
    f"""
    SELECT NULL::uuid AS order_id, name || ' (' || columns || ')' AS detail
    FROM (VALUES {", ".join(map(str, _UNIQUE.items()))}) key (name, columns)
    WHERE NOT EXISTS (
        SELECT FROM pg_index i WHERE i.indrelid = key.name::regclass AND i.indisunique AND i.indisvalid
            AND key.columns = (SELECT string_agg(a.attname, ',' ORDER BY k.n)
                FROM unnest(i.indkey) WITH ORDINALITY k (attnum, n)
                JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum))""",
)

_OUTBOXES: Final = " UNION ALL ".join(
    f'SELECT unnest(event_ids) AS event_id, id, type, body FROM "{service}".outbox' for service in SERVICES
)
_COPIES: Final = " UNION ALL ".join(
    [f'SELECT id AS event_id, order_id, body FROM "{service}".parked' for service in SERVICES]
    + ["SELECT * FROM (SELECT id, order_id, event FROM email.mails ORDER BY id DESC LIMIT 2000) newest"]
)

ONE_PAYLOAD: Final = Check(
    "I15",
    "One event id means one payload everywhere (outboxes, parked events, the 2,000 newest mails).",
    "{count} events are told in different ways, such as {detail}.",
    f"""
    SELECT NULL::uuid AS order_id, event_id || ' in two messages' AS detail FROM (
        SELECT event_id FROM ({_OUTBOXES}) every GROUP BY event_id HAVING count(*) > 1) twice
    UNION ALL
    SELECT copy.order_id, copy.event_id || ' in a copy' FROM ({_COPIES}) copy
    JOIN ({_OUTBOXES}) original USING (event_id)
    WHERE position(copy.body IN original.body) = 0
        AND CASE WHEN copy.order_id IS NULL THEN true  -- kept as it came: it need not be JSON
            ELSE NOT convert_from(original.body, 'UTF8')::jsonb
                @> jsonb_build_array(convert_from(copy.body, 'UTF8')::jsonb) END""",
)

_WAITING: Final = {
    **{
        f'"{service}".{table}': (state, orders)
        for service in SERVICES
        for table, state, orders in (("outbox", "pending", "order_ids[1]"), ("parked", "retry", "order_id"))
    },
    "billing.payments": ("pending", "order_id"),
    "billing.refunds": ("pending", "order_id"),
    "shipment.shipments": ("pending", "order_id"),
    "email.mails": ("pending", "order_id"),
}
"""Every table of work to be done: the state of what waits, and where its order is named."""
WORK: Final = {table.replace('"', ""): table for table in _WAITING if not table.endswith(".parked")}
"""The tables of work that may be given up, by their names for people: not the events that came in."""


def _overdue(table: str, state: str) -> str:
    """SQL: that a row's time has come long ago, and that it does not wait for the end of an outage.

    There is an outage if the other side was away when a row of the table was tried last.
    """
    return f"""claimed_until < {SETTLED} AND NOT EXISTS (
        SELECT FROM {table}
        WHERE state = '{state}' AND last_failure = 'outage' AND claimed_until > {SETTLED})"""


def _waits(*, at_all: bool) -> str:
    """SQL for what waits: at all, or although its time has come long ago."""
    return " UNION ALL ".join(
        f"""SELECT {order} AS order_id,
                '{table.replace('"', "")}' || coalesce(': ' || last_error, '') AS detail
            FROM {table} WHERE state = '{state}' AND {"true" if at_all else _overdue(table, state)}"""
        for table, (state, order) in _WAITING.items()
    )


NO_WAIT: Final = Check(
    "I17",
    "No message, intent or due retry waits for longer than 30 seconds after its time.",
    "{count} rows of work are due, and nobody does them, such as one in {detail}.",
    _waits(at_all=False),
)
NOTHING_WAITS: Final = Check(
    "I17",
    "Nothing waits: the system is said to be at rest.",
    "{count} rows of work still wait, such as one in {detail}.",
    _waits(at_all=True),
)


def checks(listeners: Sequence[str], *, quiet: bool) -> tuple[Check, ...]:
    """All of them. Only the `listeners` have nothing in their queues, so only they must have everything."""
    return (
        *(arrived(service) for service in listeners),
        *(had_its_effect(service) for service in SERVICES if service in _EFFECTS),
        _taken_over(
            "order",
            'SELECT order_id, event_id, type, time AS at FROM "order".timeline '
            "WHERE type <> 'ORDER_CREATED' "
            'UNION ALL SELECT order_id, event_id, type, time FROM "order".delays',
        ),
        _taken_over(
            "email", "SELECT order_id, id AS event_id, stage AS type, written_at AS at FROM email.mails"
        ),
        UNIQUE_KEYS,
        ONE_PAYLOAD,
        NOTHING_WAITS if quiet else NO_WAIT,
    )
