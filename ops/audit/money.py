"""What must hold of the money: the payment provider's own ledger against what billing believes.

A check against the ledger reads temporary tables alone: the ledger (`charges`, `repayments`), and the
services' records (`orders`, `payments`, …) as they were before the ledger was read. See `copies`.
"""

from typing import Final

from ops.audit.check import QUIET, SETTLED, SINCE, Check
from ops.audit.orders import OF_AN_ORDER

_STANDING: Final = """
    (SELECT c.id, coalesce(r.taken_by, c.order_id) AS order_id, c.payment_id, c.amount, c.currency,
        c.created_at, c.order_reference, c.key_hash
    FROM pg_temp.charges c
    LEFT JOIN pg_temp.recovered_charges r ON r.charge = c.id
    WHERE c.succeeded AND (r.decision = 'refund' AND (r.to_refund = 0 OR r.refund_reference IS NOT NULL))
        IS NOT TRUE)"""
"""SQL for the charges that succeeded, without those that were given back because a restore had lost them.

`order_id` is the order that a charge has paid: of one that was kept in a restore, the order that took it.
"""

ONE_CHARGE: Final = Check(
    "I6",
    "At most one successful charge per order, says the provider's own ledger.",
    "{count} orders were charged more than once, such as {detail}.",
    f"""
    SELECT order_id, count(*) || ' times, ' || string_agg(id, ' ' ORDER BY id) AS detail
    FROM {_STANDING} c GROUP BY order_id HAVING count(*) > 1""",
)

PAID_ONCE: Final = Check(
    "I6",
    "Nobody has paid twice for one order, or for one Idempotency-Key.",
    "{count} customers have paid twice: {detail}. Orders placed again after a restore do that; "
    "'orderflow restore' gives one charge back.",
    f"""
    WITH held AS (
        SELECT c.*, format('order %s%s, %s %s, charge %s', order_id, ' (' || order_reference || ')',
            amount, currency, id) AS told
        FROM {_STANDING} c
        LEFT JOIN (SELECT charge_id, sum(amount) AS given_back FROM pg_temp.repayments
            GROUP BY charge_id) g ON g.charge_id = c.id
        WHERE amount > coalesce(given_back, 0)),
    repeated AS (
        SELECT *, created_at - lag(created_at) OVER same_key AS after_the_last,
            lead(created_at) OVER same_key - created_at AS before_the_next
        FROM held WHERE key_hash IS NOT NULL WINDOW same_key AS (PARTITION BY key_hash ORDER BY created_at))
    SELECT (array_agg(order_id ORDER BY created_at DESC))[1] AS order_id,
        string_agg(told, ' and ' ORDER BY created_at) AS detail
    FROM held GROUP BY held.order_id HAVING count(*) > 1
    UNION ALL
    SELECT (array_agg(order_id ORDER BY created_at DESC))[1], string_agg(told, ' and ' ORDER BY created_at)
    FROM repeated
    WHERE least(after_the_last, before_the_next) < interval '30 days'
    GROUP BY key_hash HAVING count(DISTINCT order_id) > 1""",
)
"""A key is remembered for 30 days; a later request with it is meant as another order."""

BALANCE: Final = Check(
    "I7",
    "Captured less refunded is the total of the orders paid and not refunded, per currency.",
    "The money does not balance in {count} currencies: {detail}.",
    f"""
    SELECT NULL::uuid AS order_id,
        format('the provider holds %s %s, the orders are worth %s', held, currency, owed) AS detail
    FROM (
        SELECT p.currency,
            coalesce(sum(o.total) FILTER (WHERE r.state IS DISTINCT FROM 'refunded'), 0) AS owed,
            coalesce(sum(c.amount), 0)
                - coalesce(sum(g.amount) FILTER (WHERE r.state = 'refunded'), 0)
                - coalesce(sum(r.amount) FILTER (WHERE r.by_hand AND g.amount IS NULL), 0) AS held
        FROM pg_temp.payments p
        JOIN pg_temp.orders o ON o.id = p.order_id
        LEFT JOIN pg_temp.refunds r ON r.order_id = p.order_id
        LEFT JOIN (SELECT order_id, sum(amount) AS amount FROM {_STANDING} standing
            GROUP BY order_id) c ON c.order_id = p.order_id
        LEFT JOIN (SELECT charge_id, sum(amount) AS amount FROM pg_temp.repayments
            GROUP BY charge_id) g ON g.charge_id = p.provider_reference
        WHERE p.state = 'captured' AND p.provider = current_setting('audit.provider')
        GROUP BY p.currency) sums
    WHERE held <> owed""",
)

_NO_ORPHANS: Final = (
    "No charge that billing does not know of, and no payment that the provider does not know of."
)

NO_UNKNOWN_CHARGES: Final = Check(
    "I8",
    _NO_ORPHANS,
    "{count} charges of the payment provider are not what billing knows, such as {detail}.",
    f"""
    SELECT c.order_id, 'the charge ' || c.id || CASE WHEN p.id IS NULL THEN ' without a payment'
        WHEN p.state = 'captured' THEN ' of a payment made with ' || p.provider_reference
        ELSE ' of a payment that is ' || p.state END AS detail
    FROM pg_temp.charges c LEFT JOIN pg_temp.payments p ON p.order_id = c.order_id AND p.id = c.payment_id
    WHERE c.succeeded AND c.created_at < {SETTLED}
        AND NOT EXISTS (SELECT FROM pg_temp.recovered_charges r WHERE r.charge = c.id)
        AND (p.id IS NULL OR p.state = 'declined' OR p.state <> 'captured' AND p.created_at < {SETTLED}
            OR p.state = 'captured' AND p.provider_reference <> c.id)""",
)

NO_UNKNOWN_PAYMENTS: Final = Check(
    "I8",
    _NO_ORPHANS,
    "{count} captured payments of billing have no charge at the payment provider, such as that of {detail}.",
    """
    SELECT p.order_id, p.provider_reference AS detail
    FROM pg_temp.payments p
    LEFT JOIN (SELECT c.id, c.payment_id, r.taken_by FROM pg_temp.charges c
        LEFT JOIN pg_temp.recovered_charges r ON r.charge = c.id WHERE c.succeeded) c
        ON c.id = p.provider_reference AND (c.payment_id = p.id OR c.taken_by = p.order_id)
    WHERE p.state = 'captured' AND p.provider = current_setting('audit.provider') AND c.id IS NULL""",
)

RECOVERED: Final = Check(
    "I8",
    "Every charge that a restore was to give back was given back.",
    "{count} charges that a restore was to give back were not, such as {detail}: run 'orderflow restore'.",
    f"""
    SELECT r.order_id, r.charge || ' of ' || r.charged_at::date AS detail FROM pg_temp.recovered_charges r
    WHERE r.charged_at >= {SINCE} AND r.decision = 'refund' AND r.to_refund > 0
        AND r.provider = current_setting('audit.provider')
        AND (r.refund_reference IS NULL OR r.refund_reference <> 'by hand'
            AND NOT EXISTS (SELECT FROM pg_temp.repayments g WHERE g.id = r.refund_reference))""",
)


def _right_amount(things: str, said: str, orders: str) -> Check:
    """That these (order_id, amount, currency) are over the totals of their orders."""
    return Check(
        "I9",
        "What is charged is the order's total, in its currency.",
        f"{{count}} {things} are over another amount than their orders, such as {{detail}}.",
        f"""
        SELECT o.id AS order_id,
            format('%s %s for %s %s', said.amount, said.currency, o.total, o.currency) AS detail
        FROM {said} said JOIN {orders} o ON o.id = said.order_id
        WHERE (said.amount, said.currency) IS DISTINCT FROM (o.total, o.currency)""",
    )


RIGHT_CHARGES: Final = _right_amount(
    "charges of the payment provider",
    "(SELECT order_id, amount, currency FROM pg_temp.charges WHERE succeeded)",
    "pg_temp.orders",
)
RIGHT_PAYMENTS: Final = _right_amount("payments of billing", "billing.payments", '"order".orders')
RIGHT_REFUNDS: Final = _right_amount("refunds of billing", "billing.refunds", '"order".orders')

_REFUNDED_ONCE: Final = "Never more refunded than captured, once per cause, and only what billing asked for."

NOT_TOO_MUCH: Final = Check(
    "I10",
    _REFUNDED_ONCE,
    "{count} charges were given back in a wrong way by the payment provider, such as {detail}.",
    f"""
    SELECT c.order_id,
        format('%s given back in %s refunds of %s captured', g.amount, g.times, coalesce(c.amount, 0))
            AS detail
    FROM (SELECT charge_id, sum(amount) AS amount, count(*) AS times, min(created_at) AS created_at
        FROM pg_temp.repayments GROUP BY charge_id) g
    LEFT JOIN pg_temp.charges c ON c.id = g.charge_id AND c.succeeded
    LEFT JOIN pg_temp.recovered_charges r ON r.charge = g.charge_id
    WHERE c.id IS NULL AND g.created_at < {SETTLED} OR g.amount > c.amount
        OR g.times > 1 AND r.charge IS NULL""",
)

NO_UNKNOWN_REPAYMENTS: Final = Check(
    "I10",
    _REFUNDED_ONCE,
    "{count} refunds of the payment provider are none that billing asked for, such as {detail}.",
    f"""
    SELECT c.order_id, g.id AS detail FROM pg_temp.repayments g
    LEFT JOIN pg_temp.charges c ON c.id = g.charge_id
    WHERE g.created_at < {SETTLED} AND NOT EXISTS (SELECT FROM pg_temp.refunds r WHERE r.id = g.refund_id)
        AND NOT EXISTS (SELECT FROM pg_temp.recovered_charges r
            WHERE r.charge = g.charge_id AND r.decision = 'refund')""",
)

NO_UNKNOWN_REFUNDS: Final = Check(
    "I10",
    _REFUNDED_ONCE,
    "{count} refunds of billing were not made by the payment provider, such as {detail}.",
    """
    SELECT r.order_id, coalesce(r.provider_reference, r.id::text) AS detail
    FROM pg_temp.refunds r JOIN pg_temp.payments p ON p.id = r.payment_id
    WHERE r.state = 'refunded' AND NOT r.by_hand AND p.provider = current_setting('audit.provider')
        AND NOT EXISTS (SELECT FROM pg_temp.repayments g WHERE g.refund_id = r.id)""",
)
"""A refund that a person made by hand is on record as such, and the provider need not know of it."""

OF_ORDERS: Final = Check(
    "I5",
    OF_AN_ORDER,
    "{count} charges of the payment provider belong to no order.",
    f"""
    SELECT order_id, NULL AS detail FROM pg_temp.charges c
    WHERE created_at < {SETTLED} AND NOT EXISTS (SELECT FROM pg_temp.orders o WHERE o.id = c.order_id)
        AND NOT EXISTS (SELECT FROM pg_temp.recovered_charges r WHERE r.charge = c.id)""",
)


def _known_soon(things: str, table: str) -> Check:
    """That no row of billing's is without its outcome for long.

    An attempt counts when its outcome is unknown; one that an outage kept from being made does not.
    """
    return Check(
        "I11",
        "No payment that was asked for stays unknown for longer than two minutes.",
        f"{{count}} {things} of billing are not settled after two minutes; the first was told: {{detail}}.",
        f"""
        SELECT order_id, coalesce(last_error, 'nothing') AS detail FROM {table}
        WHERE state = 'pending' AND created_at < least({SETTLED}, now() - interval '2 minutes')
            AND ({QUIET} OR attempts > 0)""",
    )


KNOWN_SOON: Final = (_known_soon("payments", "billing.payments"), _known_soon("refunds", "billing.refunds"))

PAID_FIRST: Final = Check(
    "I20",
    "Shipped means paid.",
    "{count} parcels were sent for orders that are not paid.",
    """
    SELECT s.order_id, NULL AS detail FROM shipment.shipments s
    WHERE NOT EXISTS (
        SELECT FROM billing.payments p WHERE p.order_id = s.order_id AND p.state = 'captured')""",
)

CHECKS: Final = (RIGHT_PAYMENTS, RIGHT_REFUNDS, *KNOWN_SOON, PAID_FIRST)
AGAINST_THE_LEDGER: Final = (
    OF_ORDERS,
    ONE_CHARGE,
    PAID_ONCE,
    RECOVERED,
    BALANCE,
    NO_UNKNOWN_CHARGES,
    NO_UNKNOWN_PAYMENTS,
    RIGHT_CHARGES,
    NOT_TOO_MUCH,
    NO_UNKNOWN_REPAYMENTS,
    NO_UNKNOWN_REFUNDS,
)
