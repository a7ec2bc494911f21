"""What must hold of the money: the payment provider's own ledger against what billing believes."""

from typing import Final

from ops.audit.check import QUIET, SETTLED, Check

_STANDING: Final = """
    (SELECT c.id, coalesce(r.taken_by, c.order_id) AS order_id, c.payment_id, c.amount, c.currency,
        c.created_at, c.order_reference, c.key_hash
    FROM pg_temp.charges c
    LEFT JOIN billing.recovered_charges r ON r.charge = c.id
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
        WHERE amount > coalesce(
            (SELECT sum(g.amount) FROM pg_temp.repayments g WHERE g.charge_id = c.id), 0)),
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
        FROM billing.payments p
        JOIN "order".orders o ON o.id = p.order_id
        LEFT JOIN billing.refunds r ON r.order_id = p.order_id
        LEFT JOIN (SELECT order_id, sum(amount) AS amount FROM {_STANDING} standing
            GROUP BY order_id) c ON c.order_id = p.order_id
        LEFT JOIN (SELECT charge_id, sum(amount) AS amount FROM pg_temp.repayments
            GROUP BY charge_id) g ON g.charge_id = p.provider_reference
        WHERE p.state = 'captured' AND p.provider = current_setting('audit.provider')
        GROUP BY p.currency) sums
    WHERE held <> owed""",
)

NO_ORPHANS: Final = Check(
    "I8",
    "No charge that billing does not know of, and no payment that the provider does not know of.",
    "{count} charges and payments are without each other, such as {detail}.",
    f"""
    SELECT c.order_id, 'the charge ' || c.id || CASE WHEN p.id IS NULL THEN ' without a payment'
        ELSE ' of a payment that is ' || p.state END AS detail
    FROM pg_temp.charges c LEFT JOIN billing.payments p ON p.order_id = c.order_id AND p.id = c.payment_id
    WHERE c.succeeded AND c.created_at < {SETTLED}
        AND c.id NOT IN (SELECT charge FROM billing.recovered_charges)
        AND (p.id IS NULL OR p.state = 'declined' OR p.state <> 'captured' AND p.created_at < {SETTLED}
            OR p.state = 'captured' AND p.provider_reference <> c.id)
    UNION ALL
    SELECT p.order_id, 'a captured payment without its charge ' || p.provider_reference
    FROM billing.payments p
    LEFT JOIN pg_temp.charges c ON c.id = p.provider_reference AND c.succeeded
        AND (c.payment_id = p.id OR c.id IN (
            SELECT charge FROM billing.recovered_charges r WHERE r.taken_by = p.order_id))
    WHERE p.state = 'captured' AND p.provider = current_setting('audit.provider') AND c.id IS NULL""",
)

RECOVERED: Final = Check(
    "I8",
    "Every charge that a restore was to give back was given back.",
    "{count} charges that a restore was to give back were not, such as {detail}: run 'orderflow restore'.",
    """
    SELECT r.order_id, r.charge || ' of ' || r.charged_at::date AS detail FROM billing.recovered_charges r
    WHERE r.decision = 'refund' AND r.to_refund > 0 AND r.provider = current_setting('audit.provider')
        AND (r.refund_reference IS NULL OR r.refund_reference <> 'by hand'
            AND NOT EXISTS (SELECT FROM pg_temp.repayments g WHERE g.id = r.refund_reference))""",
)

RIGHT_AMOUNT: Final = Check(
    "I9",
    "What is charged is the order's total, in its currency.",
    "{count} charges and payments are over another amount, such as {detail}.",
    """
    SELECT o.id AS order_id,
        format('%s %s for %s %s', said.amount, said.currency, o.total, o.currency) AS detail
    FROM (SELECT order_id, amount, currency FROM pg_temp.charges WHERE succeeded
        UNION ALL SELECT order_id, amount, currency FROM billing.payments
        UNION ALL SELECT order_id, amount, currency FROM billing.refunds) said
    JOIN "order".orders o ON o.id = said.order_id
    WHERE (said.amount, said.currency) IS DISTINCT FROM (o.total, o.currency)""",
)

REFUNDED_ONCE: Final = Check(
    "I10",
    "Never more refunded than captured, once per cause, and only what billing asked for.",
    "{count} refunds are wrong, such as {detail}.",
    f"""
    SELECT c.order_id,
        format('%s given back in %s refunds of %s captured', g.amount, g.times, coalesce(c.amount, 0))
            AS detail
    FROM (SELECT charge_id, sum(amount) AS amount, count(*) AS times, min(created_at) AS created_at
        FROM pg_temp.repayments GROUP BY charge_id) g
    LEFT JOIN pg_temp.charges c ON c.id = g.charge_id AND c.succeeded
    WHERE c.id IS NULL AND g.created_at < {SETTLED} OR g.amount > c.amount
        OR g.times > 1 AND g.charge_id NOT IN (SELECT charge FROM billing.recovered_charges)
    UNION ALL
    SELECT r.order_id, 'the refund ' || coalesce(g.id, r.provider_reference, '') || ' told by one side only'
    FROM billing.refunds r JOIN billing.payments p ON p.id = r.payment_id
    FULL JOIN pg_temp.repayments g ON g.refund_id = r.id
    WHERE r.id IS NULL AND g.created_at < {SETTLED}
            AND g.charge_id NOT IN (SELECT charge FROM billing.recovered_charges WHERE decision = 'refund')
        OR g.id IS NULL AND r.state = 'refunded' AND NOT r.by_hand
            AND p.provider = current_setting('audit.provider')""",
)
"""A refund that a person made by hand is on record as such, and the provider need not know of it."""

KNOWN_SOON: Final = Check(
    "I11",
    "No payment that was asked for stays unknown for longer than two minutes.",
    "{count} payments and refunds are not settled after two minutes; the first was last told: {detail}.",
    f"""
    SELECT order_id, coalesce(last_error, 'nothing') AS detail FROM (
        SELECT order_id, last_error, created_at, state, attempts FROM billing.payments
        UNION ALL SELECT order_id, last_error, created_at, state, attempts FROM billing.refunds) asked
    WHERE state = 'pending' AND created_at < least({SETTLED}, now() - interval '2 minutes')
        AND ({QUIET} OR attempts > 0)""",
)
"""An attempt counts when its outcome is unknown; one that an outage kept from being made does not."""

PAID_FIRST: Final = Check(
    "I20",
    "Shipped means paid.",
    "{count} parcels were sent for orders that are not paid.",
    """
    SELECT s.order_id, NULL AS detail FROM shipment.shipments s
    WHERE NOT EXISTS (
        SELECT FROM billing.payments p WHERE p.order_id = s.order_id AND p.state = 'captured')""",
)

CHECKS: Final = (
    ONE_CHARGE,
    PAID_ONCE,
    RECOVERED,
    BALANCE,
    NO_ORPHANS,
    RIGHT_AMOUNT,
    REFUNDED_ONCE,
    KNOWN_SOON,
    PAID_FIRST,
)
