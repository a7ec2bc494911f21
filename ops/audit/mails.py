"""Promises about mails: one for each step of an order, to its own customer, sent or refused."""

from typing import Final

from ops.audit.check import CUTOFF, Check
from ops.audit.delivery import in_transit

RIGHT_PERSON: Final = Check(
    "I21",
    "Mails go to the order's own customer.",
    "{count} mails are addressed to somebody else than the order's customer.",
    """
    SELECT m.order_id, NULL AS detail FROM email.mails m
    JOIN (SELECT id, convert_from(snapshot, 'UTF8')::jsonb -> 'customer' ->> 'email' AS email
        FROM "order".orders OFFSET 0) o ON o.id = m.order_id
    WHERE m.recipient <> o.email""",
)

_EVERY_STEP: Final = (
    "Every step of an order has a mail, which the mail server has accepted or refused for good."
)

WRITTEN: Final = Check(
    "I21",
    _EVERY_STEP,
    "{count} steps of orders have no mail, such as {detail}.",
    f"""
    SELECT t.order_id, t.type AS detail FROM "order".timeline t
    WHERE t.time < {CUTOFF}
        AND NOT EXISTS (SELECT FROM email.mails m WHERE m.order_id = t.order_id AND m.stage = t.type)
        AND NOT EXISTS (SELECT FROM email.parked p WHERE p.id = t.event_id)
        AND NOT EXISTS (SELECT FROM ({in_transit("email")}) transit WHERE transit.event_id = t.event_id)""",
)

NOT_DEAD: Final = Check(
    "I21",
    _EVERY_STEP,
    "{count} mails are dead and need a person ('orderflow dead list'), such as the one of {detail}",
    f"""
    SELECT order_id, stage || coalesce(': ' || last_error, '.') AS detail FROM email.mails
    WHERE state = 'dead' AND written_at < {CUTOFF}""",
)

WITH_OUTCOME: Final = Check(
    "I21",
    "A sent mail has its Message-ID and the server's answer; a refused one has the reason.",
    "{count} mails ended without the mail server's answer on record, such as one that was {detail}.",
    """
    SELECT order_id, state AS detail FROM email.mails
    WHERE state = 'sent' AND (message_id IS NULL OR outcome IS NULL OR sent_at IS NULL)
        OR state = 'refused' AND outcome IS NULL AND last_error IS NULL""",
)

DEFERRED_TOO_LONG: Final = """
    SELECT count(*), (array_agg(last_error ORDER BY written_at DESC))[1] AS error FROM email.mails
    WHERE state = 'refused' AND outcome IS NULL HAVING count(*) > 0"""
"""SQL for the mails that were given up because the mail server kept deferring them."""

CHECKS: Final = (RIGHT_PERSON, WRITTEN, NOT_DEAD, WITH_OUTCOME)
