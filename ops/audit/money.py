"""Promises about money: the payment provider's ledger and billing's records agree.

`LEDGER_CHECKS` read only temporary tables: the ledger (`ledger_charges`, `ledger_refunds`), and the services'
records (`orders`, `payments`, …) as they were before the ledger was read. See `temporary_tables`.
"""

from typing import Final

from events.contracts import NO_PROVIDER
from ops.audit.check import CUTOFF, QUIET, SINCE, Check
from ops.audit.orders import HAS_ORDER

_VALID_CHARGES: Final = """
    (SELECT c.id, coalesce(r.taken_by, c.order_id) AS order_id, c.payment_id, c.amount, c.currency,
        c.created_at, c.order_reference, c.key_hash
    FROM pg_temp.ledger_charges c
    LEFT JOIN pg_temp.recovered_charges r ON r.charge = c.id
    WHERE c.succeeded AND (r.decision = 'refund' AND (r.to_refund = 0 OR r.refund_reference IS NOT NULL))
        IS NOT TRUE)"""
"""SQL for the successful charges, without those that `orderflow restore` has refunded.

`order_id` is the order that a charge pays for: for one that a restore kept, the order that took it.
"""

ONE_CHARGE: Final = Check(
    "I6",
    "At most one successful charge per order, by the provider's own ledger.",
    "{count} orders were charged more than once, such as {detail}.",
    f"""
    SELECT order_id, count(*) || ' times, ' || string_agg(id, ' ' ORDER BY id) AS detail
    FROM {_VALID_CHARGES} c GROUP BY order_id HAVING count(*) > 1""",
)

PAID_ONCE: Final = Check(
    "I6",
    "Nobody has paid twice for one order, or for one Idempotency-Key.",
    "{count} customers have paid twice: {detail}. If the order was placed again after a restored backup, "
    "'orderflow restore' refunds one charge.",
    f"""
    WITH held AS (
        SELECT c.*, format('order %s%s, %s %s, charge %s', order_id, ' (' || order_reference || ')',
            amount, currency, id) AS description
        FROM {_VALID_CHARGES} c
        LEFT JOIN (SELECT charge_id, sum(amount) AS refunded FROM pg_temp.ledger_refunds
            GROUP BY charge_id) g ON g.charge_id = c.id
        WHERE amount > coalesce(refunded, 0)),
    repeated AS (
        SELECT *, created_at - lag(created_at) OVER same_key AS after_the_last,
            lead(created_at) OVER same_key - created_at AS before_the_next
        FROM held WHERE key_hash IS NOT NULL WINDOW same_key AS (PARTITION BY key_hash ORDER BY created_at))
    SELECT (array_agg(order_id ORDER BY created_at DESC))[1] AS order_id,
        string_agg(description, ' and ' ORDER BY created_at) AS detail
    FROM held GROUP BY held.order_id HAVING count(*) > 1
    UNION ALL
    SELECT (array_agg(order_id ORDER BY created_at DESC))[1],
        string_agg(description, ' and ' ORDER BY created_at)
    FROM repeated
    WHERE least(after_the_last, before_the_next) < interval '30 days'
    GROUP BY key_hash HAVING count(DISTINCT order_id) > 1""",
)
"""A key is remembered for 30 days; a later request with it makes another order."""

BALANCE: Final = Check(
    "I7",
    "Captured less refunded equals the total of the orders paid and not refunded, per currency.",
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
        LEFT JOIN (SELECT order_id, sum(amount) AS amount FROM {_VALID_CHARGES} standing
            GROUP BY order_id) c ON c.order_id = p.order_id
        LEFT JOIN (SELECT charge_id, sum(amount) AS amount FROM pg_temp.ledger_refunds
            GROUP BY charge_id) g ON g.charge_id = p.provider_reference
        WHERE p.state = 'captured' AND p.provider = current_setting('audit.provider')
        GROUP BY p.currency) sums
    WHERE held <> owed""",
)

_BOTH_KNOW: Final = "Every charge is known to billing, and every payment above 0 to the provider."

ONLY_NOTHING_IS_FREE: Final = Check(
    "I8",
    _BOTH_KNOW,
    "{count} payments of billing were captured without a charge, or are charges of 0, such as {detail}.",
    f"""
    SELECT order_id, format('%s %s by the provider %s', amount, currency, provider) AS detail
    FROM billing.payments
    WHERE state = 'captured' AND (amount = 0) <> (provider = '{NO_PROVIDER}')""",
)
"""A payment of 0 is captured by no provider, and every other by one."""

NO_UNKNOWN_CHARGES: Final = Check(
    "I8",
    _BOTH_KNOW,
    "{count} charges of the payment provider do not match billing's payments, such as {detail}.",
    f"""
    SELECT c.order_id, 'the charge ' || c.id || CASE WHEN p.id IS NULL THEN ' without a payment'
        WHEN p.state = 'captured' THEN ' of a payment made with ' || p.provider_reference
        ELSE ' of a payment that is ' || p.state END AS detail
    FROM pg_temp.ledger_charges c
    LEFT JOIN pg_temp.payments p ON p.order_id = c.order_id AND p.id = c.payment_id
    WHERE c.succeeded AND c.created_at < {CUTOFF}
        AND NOT EXISTS (SELECT FROM pg_temp.recovered_charges r WHERE r.charge = c.id)
        AND (p.id IS NULL OR p.state = 'declined' OR p.state <> 'captured' AND p.created_at < {CUTOFF}
            OR p.state = 'captured' AND p.provider_reference <> c.id)""",
)

NO_UNKNOWN_PAYMENTS: Final = Check(
    "I8",
    _BOTH_KNOW,
    "{count} captured payments of billing have no charge at the payment provider, such as {detail}.",
    """
    SELECT p.order_id, p.provider_reference AS detail
    FROM pg_temp.payments p
    LEFT JOIN (SELECT c.id, c.payment_id, r.taken_by FROM pg_temp.ledger_charges c
        LEFT JOIN pg_temp.recovered_charges r ON r.charge = c.id WHERE c.succeeded) c
        ON c.id = p.provider_reference AND (c.payment_id = p.id OR c.taken_by = p.order_id)
    WHERE p.state = 'captured' AND p.provider = current_setting('audit.provider') AND c.id IS NULL""",
)

REFUNDED_BY_RESTORE: Final = Check(
    "I8",
    "Every charge that 'orderflow restore' decided to refund was refunded.",
    "{count} charges that 'orderflow restore' was to refund were not, such as {detail}: run it again.",
    f"""
    SELECT r.order_id, r.charge || ' of ' || r.charged_at::date AS detail FROM pg_temp.recovered_charges r
    WHERE r.charged_at >= {SINCE} AND r.decision = 'refund' AND r.to_refund > 0
        AND r.provider = current_setting('audit.provider')
        AND (r.refund_reference IS NULL OR r.refund_reference <> 'by hand'
            AND NOT EXISTS (SELECT FROM pg_temp.ledger_refunds g WHERE g.id = r.refund_reference))""",
)


def _right_amount(things: str, rows: str, orders: str) -> Check:
    """These rows (order_id, amount, currency) are over their orders' totals."""
    return Check(
        "I9",
        "Charges, payments and refunds are over the order's total, in its currency.",
        f"{{count}} {things} differ from their orders' totals, such as {{detail}}.",
        f"""
        SELECT o.id AS order_id,
            format('%s %s for %s %s', r.amount, r.currency, o.total, o.currency) AS detail
        FROM {rows} r JOIN {orders} o ON o.id = r.order_id
        WHERE (r.amount, r.currency) IS DISTINCT FROM (o.total, o.currency)""",
    )


CHARGE_AMOUNTS: Final = _right_amount(
    "charges of the payment provider",
    "(SELECT order_id, amount, currency FROM pg_temp.ledger_charges WHERE succeeded)",
    "pg_temp.orders",
)
PAYMENT_AMOUNTS: Final = _right_amount("payments of billing", "billing.payments", '"order".orders')
REFUND_AMOUNTS: Final = _right_amount("refunds of billing", "billing.refunds", '"order".orders')

_REFUNDED_ONCE: Final = "Never more refunded than captured, once per cause, and only if billing asked for it."

NOT_TOO_MUCH: Final = Check(
    "I10",
    _REFUNDED_ONCE,
    "{count} charges were refunded wrongly by the payment provider, such as {detail}.",
    f"""
    SELECT c.order_id,
        format('%s refunded in %s refunds, of %s captured', g.amount, g.times, coalesce(c.amount, 0))
            AS detail
    FROM (SELECT charge_id, sum(amount) AS amount, count(*) AS times, min(created_at) AS created_at
        FROM pg_temp.ledger_refunds GROUP BY charge_id) g
    LEFT JOIN pg_temp.ledger_charges c ON c.id = g.charge_id AND c.succeeded
    LEFT JOIN pg_temp.recovered_charges r ON r.charge = g.charge_id
    WHERE c.id IS NULL AND g.created_at < {CUTOFF} OR g.amount > c.amount
        OR g.times > 1 AND r.charge IS NULL""",
)

NO_UNKNOWN_LEDGER_REFUNDS: Final = Check(
    "I10",
    _REFUNDED_ONCE,
    "{count} refunds of the payment provider were not asked for by billing, such as {detail}.",
    f"""
    SELECT c.order_id, g.id AS detail FROM pg_temp.ledger_refunds g
    LEFT JOIN pg_temp.ledger_charges c ON c.id = g.charge_id
    WHERE g.created_at < {CUTOFF} AND NOT EXISTS (SELECT FROM pg_temp.refunds r WHERE r.id = g.refund_id)
        AND NOT EXISTS (SELECT FROM pg_temp.recovered_charges r
            WHERE r.charge = g.charge_id AND r.decision = 'refund')""",
)

NO_UNKNOWN_REFUNDS: Final = Check(
    "I10",
    _REFUNDED_ONCE,
    "{count} refunds of billing do not exist at the payment provider, such as {detail}.",
    """
    SELECT r.order_id, coalesce(r.provider_reference, r.id::text) AS detail
    FROM pg_temp.refunds r JOIN pg_temp.payments p ON p.id = r.payment_id
    WHERE r.state = 'refunded' AND NOT r.by_hand AND p.provider = current_setting('audit.provider')
        AND NOT EXISTS (SELECT FROM pg_temp.ledger_refunds g WHERE g.refund_id = r.id)""",
)
"""A refund that a person recorded as made by hand need not exist at the provider."""

CHARGES_BELONG_TO_ORDERS: Final = Check(
    "I5",
    HAS_ORDER,
    "{count} charges of the payment provider belong to no order.",
    f"""
    SELECT order_id, NULL AS detail FROM pg_temp.ledger_charges c
    WHERE created_at < {CUTOFF} AND NOT EXISTS (SELECT FROM pg_temp.orders o WHERE o.id = c.order_id)
        AND NOT EXISTS (SELECT FROM pg_temp.recovered_charges r WHERE r.charge = c.id)""",
)


def _known_soon(things: str, table: str) -> Check:
    """No row stays without its outcome for over two minutes.

    A row that was not tried because of an outage is exempt, unless the system is at rest.
    """
    return Check(
        "I11",
        "No payment or refund stays without an outcome for over two minutes.",
        f"{{count}} {things} of billing have no outcome after two minutes; last error: {{detail}}",
        f"""
        SELECT order_id, coalesce(last_error, 'none.') AS detail FROM {table}
        WHERE state = 'pending' AND created_at < least({CUTOFF}, now() - interval '2 minutes')
            AND ({QUIET} OR attempts > 0)""",
    )


KNOWN_SOON: Final = (_known_soon("payments", "billing.payments"), _known_soon("refunds", "billing.refunds"))

PAID_FIRST: Final = Check(
    "I20",
    "Only paid orders are shipped.",
    "{count} shipments were made for orders that are not paid.",
    """
    SELECT s.order_id, NULL AS detail FROM shipment.shipments s
    WHERE NOT EXISTS (
        SELECT FROM billing.payments p WHERE p.order_id = s.order_id AND p.state = 'captured')""",
)

CHECKS: Final = (ONLY_NOTHING_IS_FREE, PAYMENT_AMOUNTS, REFUND_AMOUNTS, *KNOWN_SOON, PAID_FIRST)
LEDGER_CHECKS: Final = (
    CHARGES_BELONG_TO_ORDERS,
    ONE_CHARGE,
    PAID_ONCE,
    REFUNDED_BY_RESTORE,
    BALANCE,
    NO_UNKNOWN_CHARGES,
    NO_UNKNOWN_PAYMENTS,
    CHARGE_AMOUNTS,
    NOT_TOO_MUCH,
    NO_UNKNOWN_LEDGER_REFUNDS,
    NO_UNKNOWN_REFUNDS,
)
