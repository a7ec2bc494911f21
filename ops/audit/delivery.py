"""What must hold of the events: each arrives, has its one effect, and is dropped by nobody."""

from collections.abc import Iterable, Sequence
from typing import Final

from events.contracts import OrderDelayed, type_of
from ops.audit.check import QUIET, SETTLED, Check
from ops.services import SERVICES
from ops.subscriptions import subscriptions

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
        for feed in subscriptions()
        if feed.listener == listener
    )


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(f"'{text}'" for text in texts)


def on_its_way(listener: str) -> str:
    """SQL for the events (event_id, order_id, type) that are on their way to a service.

    They wait in an outbox or a queue, for as long as an outage takes. One that is lost in a queue is found by
    `arrived`; one that nobody publishes any more is not on its way, and none is in a system at rest.
    """
    return f"""
        SELECT e.event_id, e.order_id, e.type FROM ({_announced(listener)}) e
        WHERE NOT {QUIET} AND (e.state = 'published' OR e.state = 'pending' AND e.claimed_until >= {SETTLED})
            AND NOT EXISTS (SELECT FROM "{listener}".inbox i WHERE i.event_id = e.event_id)"""


ARRIVES: Final = "Every event was handled or is parked by every service that listens to it."
"""The promise of I13."""


def arrived(listener: str) -> Check:
    """That everything announced has arrived at a service. Inboxes may have forgotten what is older."""
    return Check(
        "I13",
        ARRIVES,
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
        "Nothing that a service took over was dropped: it had its effect, or is parked with its reason.",
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
        "Every effect in a service belongs to an event that its inbox knows.",
        f"{{count}} effects in {listener} are of events that its inbox does not know, such as of {{detail}}.",
        f"""
        SELECT x.order_id, x.type AS detail FROM ({effects}) x
        WHERE x.at > now() - interval '29 days'
            AND NOT EXISTS (SELECT FROM "{listener}".inbox i WHERE i.event_id = x.event_id)""",
    )


def _unique_key(table: str, columns: str) -> Check:
    """That the table has its business key."""
    name = table.replace('"', "")
    return Check(
        "I14",
        "A unique business key stands beside every inbox.",
        f"The unique key of {name} ({columns}) is missing.",
        f"""
        SELECT NULL::uuid AS order_id, NULL AS detail
        WHERE NOT EXISTS (
            SELECT FROM pg_index i WHERE i.indrelid = '{table}'::regclass AND i.indisunique AND i.indisvalid
                AND '{columns}' = (SELECT string_agg(a.attname, ',' ORDER BY k.n)
                    FROM unnest(i.indkey) WITH ORDINALITY k (attnum, n)
                    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum))""",
    )


_OUTBOXES: Final = " UNION ALL ".join(
    f"SELECT unnest(event_ids) AS event_id, body, '{service}.outbox' AS place FROM \"{service}\".outbox"
    for service in SERVICES
)
_COPIES: Final = {
    **{
        f"{service}.parked": f'SELECT id AS event_id, order_id, body FROM "{service}".parked'
        for service in SERVICES
    },
    "email.mails": """
        SELECT id AS event_id, order_id, event AS body FROM email.mails ORDER BY id DESC LIMIT 2000""",
}
_ONE_PAYLOAD: Final = (
    "One event id means one payload everywhere (outboxes, parked events, the 2,000 newest mails)."
)

ONE_MESSAGE: Final = Check(
    "I15",
    _ONE_PAYLOAD,
    "{count} events are in more than one message, such as {detail}.",
    f"""
    SELECT NULL::uuid AS order_id,
        event_id || ' in ' || string_agg(DISTINCT place, ' and ' ORDER BY place) AS detail
    FROM ({_OUTBOXES}) every GROUP BY event_id HAVING count(*) > 1""",
)


def _same_payload(place: str, copies: str) -> Check:
    """That the events that are kept in this place are those that were announced, word for word."""
    return Check(
        "I15",
        _ONE_PAYLOAD,
        f"{{count}} events are told in another way in {place} than in the message that announced them, "
        "such as {detail}.",
        f"""
        SELECT DISTINCT copy.order_id, copy.event_id::text AS detail FROM ({copies}) copy
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
PATIENT: Final = {
    table.replace('"', ""): f"""
        SELECT count(*), min(waits_since) AT TIME ZONE 'UTC' AS since,
            (array_agg(coalesce(last_error, 'it was never tried') ORDER BY waits_since))[1] AS error
        FROM {table}
        WHERE state = '{state}' AND claimed_until >= {SETTLED} AND waits_since < {SETTLED}
        HAVING count(*) > 0"""
    for table, (state, _) in _WAITING.items()
}
"""SQL for what has waited for a while and is not late: it is tried again when its retry policy says so."""


def _overdue(table: str, state: str) -> str:
    """SQL: that a row's time has come long ago, and that it does not wait for the end of an outage.

    There is an outage if the other side was away when a row of the table was tried last.
    """
    return f"""claimed_until < {SETTLED} AND NOT EXISTS (
        SELECT FROM {table}
        WHERE state = '{state}' AND last_failure = 'outage' AND claimed_until > {SETTLED})"""


def _in_time(table: str, *, quiet: bool) -> Check:
    """That nothing waits in a table of work for longer than it should; at rest, that nothing waits at all."""
    state, order = _WAITING[table]
    name = table.replace('"', "")
    return Check(
        "I17",
        "Nothing waits: the system is said to be at rest."
        if quiet
        else "No message, intent or due retry waits for longer than 30 seconds after its time.",
        f"{{count}} rows of work in {name} "
        + ("still wait" if quiet else "are due, and nobody does them")
        + ", the first of them {detail}.",
        f"""
        SELECT {order} AS order_id, coalesce('after this: ' || last_error, 'never tried') AS detail
        FROM {table} WHERE state = '{state}' AND {"true" if quiet else _overdue(table, state)}""",
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
        *(_unique_key(table, columns) for table, columns in _UNIQUE.items()),
        ONE_MESSAGE,
        *(_same_payload(place, copies) for place, copies in _COPIES.items()),
        *(_in_time(table, quiet=quiet) for table in _WAITING),
    )
