"""What must hold of the mails: one for each step of an order, to its own customer, sent or refused."""

from typing import Final

from ops.audit.check import QUIET, SETTLED, Check
from ops.audit.delivery import on_its_way

RIGHT_PERSON: Final = Check(
    "I21",
    "Mails go to the order's own customer.",
    "{count} mails go to somebody else.",
    """
    SELECT m.order_id, NULL AS detail FROM email.mails m
    JOIN (SELECT id, convert_from(snapshot, 'UTF8')::jsonb -> 'customer' ->> 'email' AS email
        FROM "order".orders OFFSET 0) o ON o.id = m.order_id
    WHERE m.recipient <> o.email""",
)

EVERY_STEP: Final = Check(
    "I21",
    "There is a mail for every step of an order, and the mail server has taken it or refused it for good.",
    "{count} steps of orders have no mail, or one that is not sent, such as {detail}.",
    f"""
    SELECT t.order_id, t.type || coalesce(' (' || m.state || ')', '') AS detail FROM "order".timeline t
    LEFT JOIN email.mails m ON m.order_id = t.order_id AND m.stage = t.type
    WHERE t.time < {SETTLED} AND (m.id IS NULL OR m.state = 'dead')
        AND NOT EXISTS (SELECT FROM email.parked p WHERE p.id = t.event_id)
        AND ({QUIET} OR m.id IS NOT NULL
            OR t.event_id NOT IN (SELECT event_id FROM ({on_its_way("email")}) way))""",
)

WITH_OUTCOME: Final = Check(
    "I21",
    "A mail that was sent has its Message-ID and the server's answer.",
    "{count} mails are said to be sent without what the server said.",
    """
    SELECT order_id, NULL AS detail FROM email.mails
    WHERE state = 'sent' AND (message_id IS NULL OR outcome IS NULL OR sent_at IS NULL)""",
)

CHECKS: Final = (RIGHT_PERSON, EVERY_STEP, WITH_OUTCOME)
