"""SQL that counts states which both the fault runs and the simulation have to reach."""

from typing import Final

CAPTURED_AFTER_UNKNOWN: Final = """
    SELECT count(*) FROM billing.payments WHERE unknowns > 0 AND state = 'captured'"""
REFUNDED: Final = "SELECT count(*) FROM billing.refunds WHERE state = 'refunded'"
REFUNDED_AFTER_UNKNOWN: Final = """
    SELECT count(*) FROM billing.refunds r JOIN billing.payments p ON p.id = r.payment_id
    WHERE r.state = 'refunded' AND p.unknowns > 0"""
