"""Promises about invoices: their numbers have no gaps, and no invoice ever changes."""

from typing import Final

from ops.audit.check import Check

GAPLESS: Final = Check(
    "I18",
    "Invoice numbers are unique and without gaps, from 1, in every year, but for those recorded as lost.",
    "The invoice numbers are wrong in {count} cases: {detail}.",
    """
    SELECT NULL::uuid AS order_id,
        format('%s has %s invoices and %s lost numbers from %s to %s, and its counter is at %s', year,
            coalesce(i.invoices, 0), coalesce(i.lost, 0), i.first, i.last, coalesce(c.last, 0)) AS detail
    FROM (
        SELECT year, min(first) AS first, max(last) AS last, sum(invoices)::bigint AS invoices,
            sum(lost)::bigint AS lost
        FROM (
            SELECT year, min(serial) AS first, max(serial) AS last, count(DISTINCT serial) AS invoices,
                0 AS lost
            FROM invoice.invoices GROUP BY year
            UNION ALL SELECT year, first, last, 0, last - first + 1 FROM invoice.lost_numbers) numbers
        GROUP BY year) i
    FULL JOIN invoice.invoice_counters c USING (year)
    WHERE (i.first, i.last, c.last) IS DISTINCT FROM (1::bigint, i.invoices + i.lost, i.invoices + i.lost)
    UNION ALL
    SELECT i.order_id,
        format('%s-%s is recorded as lost, but was issued again', i.year, lpad(i.serial::text, 6, '0'))
    FROM invoice.invoices i JOIN invoice.lost_numbers l
        ON l.year = i.year AND i.serial BETWEEN l.first AND l.last""",
)

ONE_EACH: Final = Check(
    "I19",
    "Every order has at most one invoice, which matches it and never changes.",
    "{count} invoices are duplicates, differ from their orders or can be changed, such as {detail}.",
    """
    SELECT i.order_id, i.year || '-' || lpad(i.serial::text, 6, '0') AS detail
    FROM invoice.invoices i JOIN "order".orders o ON o.id = i.order_id
    WHERE i.snapshot <> o.snapshot
        AND convert_from(i.snapshot, 'UTF8')::jsonb - '{key_hash,payment_method}'::text[]
            <> convert_from(o.snapshot, 'UTF8')::jsonb - '{key_hash,payment_method}'::text[]
    UNION ALL
    SELECT order_id, count(*) || ' invoices for one order'
    FROM invoice.invoices GROUP BY order_id HAVING count(*) > 1
    UNION ALL
    SELECT NULL, 'all of them: the trigger that refuses changes is missing'
    WHERE NOT EXISTS (SELECT FROM pg_trigger
        WHERE tgrelid = 'invoice.invoices'::regclass AND NOT tgisinternal AND tgenabled <> 'D')""",
)
"""Two fields are not compared, because older processes write them otherwise.

An old one leaves out `key_hash`. In version 1 the order has the payment method, which a process of version 2
leaves out of the invoice.
"""

CHECKS: Final = (GAPLESS, ONE_EACH)
