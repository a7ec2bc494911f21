"""Each breach names the service whose records are wrong; a breach in two services gives two sentences."""

import asyncpg
import pytest

from ops.audit.ledger import SimulatedLedger
from tests.integration.conftest import order_called
from tests.integration.test_audit_unseen import found_in

UNKNOWN_ORDER = "'00000000-0000-0000-0000-00000000dead'"
ROW_WITHOUT_ORDER = """
    ALTER TABLE {table} DISABLE TRIGGER USER;
    INSERT INTO {table} SELECT (jsonb_populate_record(row, jsonb_build_object('id', gen_random_uuid(),
        'order_id', {order}, 'tracking_number', NULL, 'serial', 1000000, 'key', 'ghost'))).*
    FROM {table} row LIMIT 1;
    ALTER TABLE {table} ENABLE TRIGGER USER;"""
LATE = "now() - interval '1 hour'"
NONSENSE = """
    INSERT INTO "{service}".parked (id, type, order_id, body, reason, state, claimed_until)
    SELECT event_id, type, NULL, 'nonsense', 'invalid_event', 'dead', now() FROM "order".timeline
    WHERE order_id = $1 AND type = '{type}';"""

NAMED = {
    "I4": (
        "shipped",
        """
        DELETE FROM "order".timeline WHERE order_id = $1 AND type IN ('INVOICE_CREATED', 'PAYMENT_CONFIRMED');
        UPDATE shipment.shipments SET state = 'refused' WHERE order_id = $1""",
        {
            "1 orders went an illegal way, such as ORDER_CREATED SHIPPED.",
            "1 decisions of invoice and timeline entries do not match, such as INVOICE_CREATED, decided",
            "1 decisions of billing and timeline entries do not match, such as PAYMENT_CONFIRMED, decided",
            "2 decisions of shipment and timeline entries do not match, such as ",
        },
    ),
    "I5": (
        "shipped",
        "".join(
            ROW_WITHOUT_ORDER.format(table=table, order=UNKNOWN_ORDER)
            for table in (
                "invoice.invoices",
                "billing.payments",
                "billing.refunds",
                "shipment.shipments",
                "email.mails",
                "provider.charges",
            )
        ),
        {
            "1 invoices of invoice belong to no order.",
            "1 payments of billing belong to no order.",
            "1 refunds of billing belong to no order.",
            "1 shipments of shipment belong to no order.",
            "1 mails of email belong to no order.",
            "1 charges of the payment provider belong to no order.",
        },
    ),
    "I8": (
        "shipped",
        """
        UPDATE billing.payments SET provider_reference = 'ch_other' WHERE order_id = $1;
        UPDATE billing.payments SET provider = 'none' WHERE order_id <> $1 AND state = 'captured'""",
        {
            "1 payments of billing were captured without a charge, or are charges of 0, such as ",
            "1 charges of the payment provider do not match billing's payments, such as the charge ",
            "1 captured payments of billing have no charge at the payment provider, such as ch",
        },
    ),
    "I9": (
        "refunded",
        """
        UPDATE provider.charges SET amount = 7 WHERE order_id = $1;
        UPDATE billing.payments SET amount = 8 WHERE order_id = $1;
        UPDATE billing.refunds SET amount = 9 WHERE order_id = $1""",
        {
            "1 charges of the payment provider differ from their orders' totals, such as 7 ",
            "1 payments of billing differ from their orders' totals, such as 8 ",
            "1 refunds of billing differ from their orders' totals, such as 9 ",
        },
    ),
    "I10": (
        "refunded",
        """
        UPDATE provider.refunds SET refund_id = gen_random_uuid(), amount = amount + 1 WHERE charge_id = (
            SELECT id FROM provider.charges WHERE order_id = $1)""",
        {
            "1 charges were refunded wrongly by the payment provider, such as ",
            "1 refunds of the payment provider were not asked for by billing, such as re_",
            "1 refunds of billing do not exist at the payment provider, such as re_",
        },
    ),
    "I11": (
        "refunded",
        f"""
        UPDATE billing.payments SET state = 'pending', created_at = {LATE}, last_error = 'No answer.',
            attempts = 1
        WHERE order_id = $1;
        UPDATE billing.refunds SET state = 'pending', created_at = {LATE}, last_error = 'None either.',
            attempts = 1
        WHERE order_id = $1""",
        {
            "1 payments of billing have no outcome after two minutes; last error: No answer.",
            "1 refunds of billing have no outcome after two minutes; last error: None either.",
        },
    ),
    "I13": (
        "shipped",
        """
        DELETE FROM email.inbox WHERE event_id IN (
            SELECT event_id FROM "order".timeline WHERE order_id = $1 AND type = 'SHIPPED');
        DELETE FROM "order".inbox WHERE event_id IN (
            SELECT event_id FROM "order".timeline WHERE order_id = $1 AND type = 'SHIPPED')""",
        {
            "1 events never arrived at email, such as one of type SHIPPED.",
            "1 events never arrived at order, such as one of type SHIPPED.",
        },
    ),
    "I14": (
        "shipped",
        """
        DELETE FROM email.inbox WHERE event_id IN (
            SELECT event_id FROM "order".timeline WHERE order_id = $1 AND type = 'SHIPPED');
        DELETE FROM "order".inbox WHERE event_id IN (
            SELECT event_id FROM "order".timeline WHERE order_id = $1 AND type = 'SHIPPED');
        ALTER TABLE billing.payments DROP CONSTRAINT payments_order_id_key;
        ALTER TABLE shipment.shipments DROP CONSTRAINT one_shipment_per_order""",
        {
            "1 effects in email belong to events that are not in its inbox, such as SHIPPED.",
            "1 effects in order belong to events that are not in its inbox, such as SHIPPED.",
            "The unique key of billing.payments (order_id) is missing.",
            "The unique key of shipment.shipments (order_id) is missing.",
        },
    ),
    "I15": (
        "shipped",
        NONSENSE.format(service="email", type="SHIPPED")
        + NONSENSE.format(service="order", type="SHIPPED")
        + """
        INSERT INTO invoice.outbox (id, type, body, event_ids, order_ids, state, claimed_until)
        SELECT gen_random_uuid(), type, body, event_ids, order_ids, state, claimed_until
        FROM shipment.outbox WHERE $1 = ANY(order_ids)""",
        {
            "1 events in email.parked differ from the messages that announced them, such as ",
            "1 events in order.parked differ from the messages that announced them, such as ",
            "1 events are in more than one message, such as ",
        },
    ),
    "I16": (
        "shipped",
        """
        DELETE FROM shipment.shipments WHERE order_id = $1;
        DELETE FROM email.mails WHERE order_id = $1 AND stage = 'SHIPPED'""",
        {
            "1 events were received by shipment and had no effect, such as one of type PAYMENT_CONFIRMED.",
            "1 events were received by email and had no effect, such as one of type SHIPPED.",
        },
    ),
    "I17": (
        "shipped",
        f"""
        UPDATE shipment.outbox SET state = 'pending', claimed_until = {LATE} WHERE $1 = ANY(order_ids);
        UPDATE billing.payments SET state = 'pending', claimed_until = {LATE}, last_error = 'No answer.'
        WHERE order_id = $1""",
        {
            "Rows of shipment.outbox that are overdue: 1; the first was never tried.",
            "Rows of billing.payments that are overdue: 1; the first failed: No answer.",
        },
    ),
    "I21": (
        "shipped",
        """
        DELETE FROM email.mails WHERE order_id = $1 AND stage = 'ORDER_CREATED';
        UPDATE email.mails SET state = 'dead', last_error = 'Broken.', written_at = now() - interval '1 hour'
        WHERE order_id = $1 AND stage = 'SHIPPED';
        UPDATE email.mails SET state = 'refused', outcome = NULL, last_error = NULL
        WHERE order_id = $1 AND stage = 'INVOICE_CREATED'""",
        {
            "1 steps of orders have no mail, such as ORDER_CREATED.",
            "1 mails are dead and need a person ('orderflow dead list'), such as the one of SHIPPED: Broken.",
            "1 mails ended without the mail server's answer on record, such as one that was refused.",
        },
    ),
}


@pytest.mark.parametrize("invariant", NAMED)
async def test_each_breach_names_its_service(journeyed: str, invariant: str) -> None:
    kind, damage, sentences = NAMED[invariant]
    connection = await asyncpg.connect(journeyed.replace("+asyncpg", ""))
    order_id = await order_called(connection, kind)
    await connection.execute(damage.replace("$1", f"'{order_id}'::uuid"))
    await connection.execute(f"""UPDATE "order".timeline SET time = {LATE}""")
    for service in ("order", "shipment"):
        await connection.execute(f'UPDATE "{service}".outbox SET published_at = {LATE}')
    await connection.close()
    report = await found_in(journeyed, SimulatedLedger(journeyed), patience=0)
    found = [breach.sentence for breach in report.breaches if breach.invariant == invariant]
    assert len(found) == len(sentences), found
    for sentence in sentences:
        assert [each for each in found if each.startswith(sentence)], (sentence, found)
    assert report.unseen == ()
