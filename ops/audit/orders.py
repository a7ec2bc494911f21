"""Promises about orders: each reaches one end by a legal way, and nothing exists without its order."""

from typing import Final

from events.journey import ALTERNATIVES, ENDS, WAYS
from ops.audit.check import CUTOFF, Check
from ops.audit.delivery import in_transit
from ops.services import SERVICES

_WAYS: Final = ", ".join(f"'{' '.join(sorted(way))}'" for way in WAYS.values())
"""The legal ways of an order, each as its milestones in alphabetical order."""
_ENDS: Final = ", ".join(f"'{status}'" for status in ENDS)
_CONTRADICTS_ITSELF: Final = " OR ".join(
    f"count(DISTINCT type) FILTER (WHERE type IN {types}) > 1" for types in ALTERNATIVES
)

_ADVANCING: Final = tuple(service for service in SERVICES if service != "email")
"""The services whose work advances an order."""
_PARKED: Final = " UNION ALL ".join(f'SELECT order_id FROM "{service}".parked' for service in _ADVANCING)
_IN_TRANSIT: Final = " UNION ALL ".join(
    f"SELECT order_id FROM ({in_transit(service)}) to_{service}" for service in _ADVANCING
)

HAS_ORDER: Final = "Every invoice, payment, refund, shipment, mail and charge belongs to an accepted order."
"""The promise of I5."""

_PARKED_AT_ORDER: Final = 'SELECT order_id, type FROM "order".parked WHERE order_id IS NOT NULL'
"""SQL for the events that the order service has parked; they are not in a timeline yet."""

NOT_STALLED: Final = Check(
    "I3",
    "Every order reaches one end, or waits for something that the records name.",
    "{count} orders are stalled: they have not ended, and no pending work or event will advance them.",
    f"""
    SELECT o.id AS order_id, NULL AS detail FROM "order".orders o
    JOIN (SELECT order_id, max(time) AS latest,
            bool_or(type IN ({_ENDS})) AS final
        FROM "order".timeline GROUP BY order_id) t ON t.order_id = o.id
    WHERE NOT t.final AND t.latest < {CUTOFF}
        AND NOT EXISTS (SELECT FROM billing.payments p
            WHERE p.order_id = o.id AND p.state NOT IN ('captured', 'declined'))
        AND NOT EXISTS (SELECT FROM billing.refunds r WHERE r.order_id = o.id AND r.state <> 'refunded')
        AND NOT EXISTS (SELECT FROM shipment.shipments s
            WHERE s.order_id = o.id AND s.state NOT IN ('shipped', 'refused'))
        AND NOT EXISTS (SELECT FROM ({_PARKED}) parked WHERE parked.order_id = o.id)
        AND NOT EXISTS (SELECT FROM ({_IN_TRANSIT}) transit WHERE transit.order_id = o.id)""",
)

LEGAL_WAY: Final = Check(
    "I4",
    f"Every order goes one of the {len(WAYS)} legal ways, each step once.",
    "{count} orders went an illegal way, such as {detail}.",
    f"""
    SELECT order_id, went AS detail FROM (
        SELECT order_id, string_agg(type, ' ' ORDER BY type) AS went, max(time) AS latest,
            count(*) > count(DISTINCT type)
                OR {_CONTRADICTS_ITSELF} AS contradicts_itself,
            bool_or(type IN ({_ENDS})) AS ended
        FROM "order".timeline GROUP BY order_id) gone
    LEFT JOIN (SELECT DISTINCT order_id, true AS excused FROM (
        SELECT order_id FROM ({_PARKED_AT_ORDER}) parked
        UNION ALL SELECT order_id FROM ({in_transit("order")}) transit) missing) missing USING (order_id)
    WHERE contradicts_itself
        OR ended AND latest < {CUTOFF} AND went NOT IN ({_WAYS}) AND excused IS NULL""",
)


def _timeline_matches(service: str, types: tuple[str, ...], decided: str) -> Check:
    """The timelines have the service's decisions (order_id, type, at), and no others."""
    listed = ", ".join(f"'{type_}'" for type_ in types)
    return Check(
        "I4",
        "An order's timeline has exactly what the services decided.",
        f"{{count}} decisions of {service} and timeline entries do not match, such as {{detail}}.",
        f"""
        SELECT order_id, type || CASE WHEN entered IS NULL THEN ', decided but not in the timeline'
            ELSE ', in the timeline but not decided' END AS detail
        FROM (
            SELECT order_id, type, at, entered FROM ({decided}) decided
            FULL JOIN (
                SELECT order_id, type, true AS entered FROM "order".timeline WHERE type IN ({listed})) entries
                USING (order_id, type)
            WHERE at IS NULL OR entered IS NULL AND at < {CUTOFF}) differing
        LEFT JOIN (SELECT DISTINCT order_id, type, true AS excused FROM (
            {_PARKED_AT_ORDER} UNION ALL SELECT order_id, type FROM ({in_transit("order")}) t) m) missing
            USING (order_id, type)
        WHERE at IS NULL OR excused IS NULL""",
    )


TIMELINES_MATCH: Final = (
    _timeline_matches(
        "invoice",
        ("INVOICE_CREATED",),
        "SELECT order_id, 'INVOICE_CREATED' AS type, issued_at AS at FROM invoice.invoices",
    ),
    _timeline_matches(
        "billing",
        ("PAYMENT_CONFIRMED", "PAYMENT_FAILED", "PAYMENT_REFUNDED"),
        """
        SELECT order_id,
            CASE state WHEN 'captured' THEN 'PAYMENT_CONFIRMED' ELSE 'PAYMENT_FAILED' END AS type,
            settled_at AS at
        FROM billing.payments WHERE state IN ('captured', 'declined')
        UNION ALL
        SELECT order_id, 'PAYMENT_REFUNDED', settled_at FROM billing.refunds WHERE state = 'refunded'""",
    ),
    _timeline_matches(
        "shipment",
        ("SHIPPED", "SHIPMENT_ERROR"),
        """
        SELECT order_id, CASE state WHEN 'shipped' THEN 'SHIPPED' ELSE 'SHIPMENT_ERROR' END AS type,
            settled_at AS at
        FROM shipment.shipments WHERE state IN ('shipped', 'refused')""",
    ),
)


def _belongs_to_order(things: str, table: str) -> Check:
    """Every row of the table belongs to an order."""
    return Check(
        "I5",
        HAS_ORDER,
        f"{{count}} {things} of {table.partition('.')[0]} belong to no order.",
        f"""
        SELECT order_id, NULL AS detail FROM {table} thing
        WHERE NOT EXISTS (SELECT FROM "order".orders o WHERE o.id = thing.order_id)""",
    )


BELONG_TO_ORDERS: Final = (
    _belongs_to_order("invoices", "invoice.invoices"),
    _belongs_to_order("payments", "billing.payments"),
    _belongs_to_order("refunds", "billing.refunds"),
    _belongs_to_order("shipments", "shipment.shipments"),
    _belongs_to_order("mails", "email.mails"),
)

ANNOUNCED: Final = Check(
    "I12",
    "Every order has its ORDER_CREATED in the outbox, and every ORDER_CREATED its order.",
    "{count} orders or ORDER_CREATED events lack the other, such as {detail}.",
    """
    WITH announced AS MATERIALIZED (
        SELECT DISTINCT unnest(order_ids) AS id FROM "order".outbox WHERE type = 'ORDER_CREATED')
    SELECT id AS order_id, 'an order without its ORDER_CREATED' AS detail FROM "order".orders o
    WHERE created_at > now() - interval '29 days' AND NOT EXISTS (SELECT FROM announced a WHERE a.id = o.id)
    UNION ALL
    SELECT id, 'an ORDER_CREATED without its order' FROM announced a
    WHERE NOT EXISTS (SELECT FROM "order".orders o WHERE o.id = a.id)""",
)
"""The outbox keeps its rows for 30 days."""

CHECKS: Final = (NOT_STALLED, LEGAL_WAY, *TIMELINES_MATCH, *BELONG_TO_ORDERS, ANNOUNCED)
