"""What must hold of every order: its one end, its legal way there, and that nothing exists without it."""

from typing import Final

from events.journey import ALTERNATIVES, ENDS, WAYS
from ops.audit.check import SETTLED, Check
from ops.audit.delivery import on_its_way
from ops.services import SERVICES

_WAYS: Final = ", ".join(f"'{' '.join(sorted(way))}'" for way in WAYS.values())
"""The legal ways of an order, each as its milestones in alphabetical order."""
_ENDS: Final = ", ".join(f"'{status}'" for status in ENDS)
_CONTRADICTS_ITSELF: Final = " OR ".join(
    f"count(DISTINCT type) FILTER (WHERE type IN {types}) > 1" for types in ALTERNATIVES
)

_CARRYING_ON: Final = tuple(service for service in SERVICES if service != "email")
"""The services whose work carries an order on. A mail never does."""
_SET_ASIDE: Final = " UNION ALL ".join(f'SELECT order_id FROM "{service}".parked' for service in _CARRYING_ON)
_ON_ITS_WAY: Final = " UNION ALL ".join(
    f"SELECT order_id FROM ({on_its_way(service)}) {service}_hears" for service in _CARRYING_ON
)

OF_AN_ORDER: Final = "Every invoice, payment, refund, shipment, mail and charge belongs to an accepted order."
"""The promise of I5."""

_UNTOLD: Final = 'SELECT order_id, type FROM "order".parked WHERE order_id IS NOT NULL'
"""The events that the order service has set aside, with their reason: no timeline tells them yet."""

STANDS_STILL: Final = Check(
    "I3",
    "Every order comes to one end, or waits in a place with a name and a reason.",
    "{count} orders stand still: they have no end, and nothing is left that would carry them on.",
    f"""
    SELECT o.id AS order_id, NULL AS detail FROM "order".orders o
    JOIN (SELECT order_id, max(time) AS latest,
            bool_or(type IN ({_ENDS})) AS final
        FROM "order".timeline GROUP BY order_id) t ON t.order_id = o.id
    WHERE NOT t.final AND t.latest < {SETTLED}
        AND NOT EXISTS (SELECT FROM billing.payments p
            WHERE p.order_id = o.id AND p.state NOT IN ('captured', 'declined'))
        AND NOT EXISTS (SELECT FROM billing.refunds r WHERE r.order_id = o.id AND r.state <> 'refunded')
        AND NOT EXISTS (SELECT FROM shipment.shipments s
            WHERE s.order_id = o.id AND s.state NOT IN ('shipped', 'refused'))
        AND NOT EXISTS (SELECT FROM ({_SET_ASIDE}) aside WHERE aside.order_id = o.id)
        AND NOT EXISTS (SELECT FROM ({_ON_ITS_WAY}) way WHERE way.order_id = o.id)""",
)

LEGAL_WAY: Final = Check(
    "I4",
    f"Every order goes one of its {len(WAYS)} ways, each step once.",
    "{count} orders went an illegal way, such as {detail}.",
    f"""
    SELECT order_id, went AS detail FROM (
        SELECT order_id, string_agg(type, ' ' ORDER BY type) AS went, max(time) AS latest,
            count(*) > count(DISTINCT type)
                OR {_CONTRADICTS_ITSELF} AS contradicts_itself,
            bool_or(type IN ({_ENDS})) AS ended
        FROM "order".timeline GROUP BY order_id) gone
    LEFT JOIN (SELECT DISTINCT order_id, true AS excused FROM (
        SELECT order_id FROM ({_UNTOLD}) aside
        UNION ALL SELECT order_id FROM ({on_its_way("order")}) way) missing) missing USING (order_id)
    WHERE contradicts_itself
        OR ended AND latest < {SETTLED} AND went NOT IN ({_WAYS}) AND excused IS NULL""",
)


def _same_story(service: str, types: tuple[str, ...], decided: str) -> Check:
    """That a service's decisions (order_id, type, at) are told in the timelines, and no others are."""
    listed = ", ".join(f"'{type_}'" for type_ in types)
    return Check(
        "I4",
        "What each service decided is what the order's timeline tells.",
        f"{{count}} decisions of {service} and lines of timelines do not match, such as {{detail}}.",
        f"""
        SELECT order_id, type || CASE WHEN way IS NULL THEN ', decided and not told'
            ELSE ', told and not decided' END AS detail
        FROM (
            SELECT order_id, type, at, way FROM ({decided}) decided
            FULL JOIN (
                SELECT order_id, type, 'told' AS way FROM "order".timeline WHERE type IN ({listed})) told
                USING (order_id, type)
            WHERE at IS NULL OR way IS NULL AND at < {SETTLED}) differing
        LEFT JOIN (SELECT DISTINCT order_id, type, true AS excused FROM (
            {_UNTOLD} UNION ALL SELECT order_id, type FROM ({on_its_way("order")}) way) missing) missing
            USING (order_id, type)
        WHERE at IS NULL OR excused IS NULL""",
    )


SAME_STORIES: Final = (
    _same_story(
        "invoice",
        ("INVOICE_CREATED",),
        "SELECT order_id, 'INVOICE_CREATED' AS type, issued_at AS at FROM invoice.invoices",
    ),
    _same_story(
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
    _same_story(
        "shipment",
        ("SHIPPED", "SHIPMENT_ERROR"),
        """
        SELECT order_id, CASE state WHEN 'shipped' THEN 'SHIPPED' ELSE 'SHIPMENT_ERROR' END AS type,
            settled_at AS at
        FROM shipment.shipments WHERE state IN ('shipped', 'refused')""",
    ),
)


def _no_ghosts(things: str, table: str) -> Check:
    """That everything in a service's table belongs to an order."""
    return Check(
        "I5",
        OF_AN_ORDER,
        f"{{count}} {things} of {table.partition('.')[0]} belong to no order.",
        f"""
        SELECT order_id, NULL AS detail FROM {table} thing
        WHERE NOT EXISTS (SELECT FROM "order".orders o WHERE o.id = thing.order_id)""",
    )


NO_GHOSTS: Final = (
    _no_ghosts("invoices", "invoice.invoices"),
    _no_ghosts("payments", "billing.payments"),
    _no_ghosts("refunds", "billing.refunds"),
    _no_ghosts("shipments", "shipment.shipments"),
    _no_ghosts("mails", "email.mails"),
)

ANNOUNCED: Final = Check(
    "I12",
    "An order is there if and only if its ORDER_CREATED is in the outbox.",
    "{count} orders and announcements are without each other, such as {detail}.",
    """
    WITH announced AS MATERIALIZED (
        SELECT DISTINCT unnest(order_ids) AS id FROM "order".outbox WHERE type = 'ORDER_CREATED')
    SELECT id AS order_id, 'an order without its announcement' AS detail FROM "order".orders o
    WHERE created_at > now() - interval '29 days' AND NOT EXISTS (SELECT FROM announced a WHERE a.id = o.id)
    UNION ALL
    SELECT id, 'an announcement without its order' FROM announced a
    WHERE NOT EXISTS (SELECT FROM "order".orders o WHERE o.id = a.id)""",
)
"""The outbox keeps its rows for 30 days."""

CHECKS: Final = (STANDS_STILL, LEGAL_WAY, *SAME_STORIES, *NO_GHOSTS, ANNOUNCED)
