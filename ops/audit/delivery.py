"""Promises about events: each arrives, has exactly one effect, and is never dropped."""

from collections.abc import Iterable, Sequence
from typing import Final

from events.contracts import OrderDelayed, type_of
from ops.audit.check import CUTOFF, QUIET, Check
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
"""SQL condition, by service: the event `e` (event_id, order_id, type) had its effect.

A delay of an order that was never accepted has no effect.
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
"""The unique business key of each table: an event that is handled twice has one effect."""


def _announced(listener: str) -> str:
    """SQL for every event that a service listens to, with its message's state.

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


def in_transit(listener: str) -> str:
    """SQL for the events (event_id, order_id, type) in transit to a service: in an outbox or in its queue.

    An outage can keep them there for any time. An event that a queue has lost counts too (`arrived` finds
    it); one whose publishing is overdue does not. In a system at rest no event is in transit.
    """
    return f"""
        SELECT e.event_id, e.order_id, e.type FROM ({_announced(listener)}) e
        WHERE NOT {QUIET} AND (e.state = 'published' OR e.state = 'pending' AND e.claimed_until >= {CUTOFF})
            AND NOT EXISTS (SELECT FROM "{listener}".inbox i WHERE i.event_id = e.event_id)"""


ARRIVES: Final = "Every event was handled or is parked by every service that listens to it."
"""The promise of I13."""


def arrived(listener: str) -> Check:
    """Every event of the last 29 days has arrived at the service; inboxes may have dropped older ones."""
    return Check(
        "I13",
        ARRIVES,
        f"{{count}} events never arrived at {listener}, such as one of type {{detail}}.",
        f"""
        SELECT e.order_id, e.type AS detail FROM ({_announced(listener)}) e
        WHERE e.published_at < {CUTOFF} AND e.published_at > now() - interval '29 days'
            AND NOT EXISTS (SELECT FROM "{listener}".inbox i WHERE i.event_id = e.event_id)""",
    )


def had_its_effect(listener: str) -> Check:
    """Every event in the service's inbox had its effect, or is parked."""
    return Check(
        "I16",
        "No event that a service has received is dropped: it had its effect, or is parked with its reason.",
        f"{{count}} events were received by {listener} and had no effect, such as one of type {{detail}}.",
        f"""
        SELECT e.order_id, e.type AS detail FROM ({_announced(listener)}) e
        JOIN "{listener}".inbox i ON i.event_id = e.event_id
        WHERE NOT ({_EFFECTS[listener]})
            AND NOT EXISTS (SELECT FROM "{listener}".parked p WHERE p.id = e.event_id)""",
    )


def _in_inbox(listener: str, effects: str) -> Check:
    """Every effect's event is in the inbox; otherwise the event could have its effect again."""
    return Check(
        "I14",
        "Every effect in a service belongs to an event in its inbox.",
        f"{{count}} effects in {listener} belong to events that are not in its inbox, such as {{detail}}.",
        f"""
        SELECT x.order_id, x.type AS detail FROM ({effects}) x
        WHERE x.at > now() - interval '29 days'
            AND NOT EXISTS (SELECT FROM "{listener}".inbox i WHERE i.event_id = x.event_id)""",
    )


def _unique_key(table: str, columns: str) -> Check:
    """The table has its unique business key."""
    name = table.replace('"', "")
    return Check(
        "I14",
        "Every table of effects has a unique business key.",
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
_STORED_EVENTS: Final = {
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


_COPY: Final = "convert_from(copy.body, 'UTF8')::jsonb"
_COPY_AS_VERSION_1: Final = f"""({_COPY} #- '{{data,payment_method}}')
    || jsonb_build_object('dataschema', replace({_COPY} ->> 'dataschema', ':2', ':1'))"""
"""SQL for the copy less what reading has changed, if its original is of version 1.

Version 1 has the payment method in the order; an event that was read has it beside the order, or nowhere.
"""


def _same_payload(place: str, copies: str) -> Check:
    """The events stored in this place have the payload that was announced."""
    return Check(
        "I15",
        _ONE_PAYLOAD,
        f"{{count}} events in {place} differ from the messages that announced them, such as {{detail}}.",
        f"""
        SELECT DISTINCT copy.order_id, copy.event_id::text AS detail FROM ({copies}) copy
        JOIN ({_OUTBOXES}) original USING (event_id)
        WHERE position(copy.body IN original.body) = 0
            AND CASE WHEN copy.order_id IS NULL THEN true  -- stored undecoded: it need not be JSON
                ELSE NOT convert_from(original.body, 'UTF8')::jsonb @> ANY (ARRAY[
                    jsonb_build_array({_COPY}), jsonb_build_array({_COPY_AS_VERSION_1})]) END""",
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
"""Every table of work: the state of a row that waits, and SQL for its order's id."""
WORK_TABLES: Final = {table.replace('"', ""): table for table in _WAITING if not table.endswith(".parked")}
"""The tables of outgoing work, by their names without quotes; parked events are reported on their own."""
AWAITING_RETRY: Final = {
    table.replace('"', ""): f"""
        SELECT count(*), min(waits_since) AT TIME ZONE 'UTC' AS since,
            (array_agg(coalesce(last_error, 'it was never tried') ORDER BY waits_since))[1] AS error
        FROM {table}
        WHERE state = '{state}' AND claimed_until >= {CUTOFF} AND waits_since < {CUTOFF}
        HAVING count(*) > 0"""
    for table, (state, _) in _WAITING.items()
}
"""SQL for rows that have waited for some time and are not overdue: their retry policy sets the next try."""


def _overdue(table: str, state: str) -> str:
    """SQL condition: a row is overdue, and no outage explains it.

    An outage explains it while another row of the table waits because its last try met one.
    """
    return f"""claimed_until < {CUTOFF} AND NOT EXISTS (
        SELECT FROM {table}
        WHERE state = '{state}' AND last_failure = 'outage' AND claimed_until > {CUTOFF})"""


def _in_time(table: str, *, quiet: bool) -> Check:
    """No row of the table is overdue; with `quiet`, no row waits at all."""
    state, order = _WAITING[table]
    name = table.replace('"', "")
    return Check(
        "I17",
        "No work waits, since the system is at rest."
        if quiet
        else "No message, intent or retry is overdue by more than 30 seconds.",
        f"Rows of {name} that {'still wait' if quiet else 'are overdue'}: {{count}}; the first {{detail}}",
        f"""
        SELECT {order} AS order_id, coalesce('failed: ' || last_error, 'was never tried.') AS detail
        FROM {table} WHERE state = '{state}' AND {"true" if quiet else _overdue(table, state)}""",
    )


def checks(listeners: Sequence[str], *, quiet: bool) -> tuple[Check, ...]:
    """All checks of this module; arrivals only at `listeners`, the services whose queues are empty."""
    return (
        *(arrived(service) for service in listeners),
        *(had_its_effect(service) for service in SERVICES if service in _EFFECTS),
        _in_inbox(
            "order",
            'SELECT order_id, event_id, type, time AS at FROM "order".timeline '
            "WHERE type <> 'ORDER_CREATED' "
            'UNION ALL SELECT order_id, event_id, type, time FROM "order".delays',
        ),
        _in_inbox(
            "email", "SELECT order_id, id AS event_id, stage AS type, written_at AS at FROM email.mails"
        ),
        *(_unique_key(table, columns) for table, columns in _UNIQUE.items()),
        ONE_MESSAGE,
        *(_same_payload(place, copies) for place, copies in _STORED_EVENTS.items()),
        *(_in_time(table, quiet=quiet) for table in _WAITING),
    )
