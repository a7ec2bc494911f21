"""`orderflow audit` reports no breach on correct records, and names every breach that is planted."""

import asyncio
import json
import uuid
from pathlib import Path

import asyncpg
import httpx
import pytest
from sqlalchemy import make_url
from typer.testing import CliRunner

from events.contracts import type_of
from events.rabbitmq import declare
from ops.audit.audit import audit
from ops.audit.ledger import StripeLedger, ledger_of
from ops.audit.report import Report
from ops.main import app
from ops.migrate import AUDITOR
from ops.services import SERVICES, load
from ops.target import Target
from tests.embedded import finished, running
from tests.integration.conftest import ORDER, order_called
from tests.servers import Broker
from tests.stripe_server import stripe_server


async def found_in(url: str, *, quiet: bool = True) -> Report:
    target = Target(url, None)
    return await audit(target, ledger=ledger_of(url), quiet=quiet, patience=5)


async def test_correct_records_have_no_breach(journeyed: str) -> None:
    report = await found_in(journeyed)
    assert report.breaches == ()
    assert report.holds
    assert (report.orders, report.dead, report.notes) == (3, {}, ())
    assert list(report.checked) == [
        f"I{n}" for n in (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21)
    ]


async def test_the_auditors_own_role_is_enough(journeyed: str, journeys: str) -> None:
    as_auditor = make_url(journeyed).set(username=f"{journeys}_{AUDITOR}", password=AUDITOR)
    report = await found_in(as_auditor.render_as_string(hide_password=False))
    assert report.breaches == ()


SHIFT = "interval '1 hour'"
FREE = """
    ALTER TABLE "order".orders DROP CONSTRAINT IF EXISTS orders_total_check;
    UPDATE "order".orders SET total = 0 WHERE id = $1;
    UPDATE billing.payments SET amount = 0, provider = 'none', provider_reference = 'none',
        payment_method = NULL
    WHERE order_id = $1;
    UPDATE billing.refunds SET amount = 0, provider_reference = 'none' WHERE order_id = $1"""
"""Makes the order one with a total of 0, apart from its charge."""
FORGET_CHARGE = """
    DELETE FROM provider.refunds WHERE charge_id IN (SELECT id FROM provider.charges WHERE order_id = $1);
    DELETE FROM provider.charges WHERE order_id = $1"""
PLANTED = [
    # invariant, kind of order, what is done to the records
    (
        "I3",
        "shipped",
        """
        DELETE FROM "order".timeline WHERE order_id = $1 AND type = 'SHIPPED';
        DELETE FROM shipment.shipments WHERE order_id = $1""",
    ),
    (
        "I4",
        "shipped",
        """
        INSERT INTO "order".timeline SELECT order_id, gen_random_uuid(), 'SHIPMENT_ERROR', time, facts
        FROM "order".timeline WHERE order_id = $1 AND type = 'SHIPPED'""",
    ),
    (
        "I4",
        "shipped",
        """
        INSERT INTO "order".timeline SELECT order_id, gen_random_uuid(), type, time, facts
        FROM "order".timeline WHERE order_id = $1 AND type = 'SHIPPED'""",
    ),
    (
        "I4",
        "declined",
        """
        INSERT INTO "order".timeline SELECT order_id, gen_random_uuid(), 'PAYMENT_CONFIRMED', time, facts
        FROM "order".timeline WHERE order_id = $1 AND type = 'PAYMENT_FAILED'""",
    ),
    ("I4", "shipped", "DELETE FROM \"order\".timeline WHERE order_id = $1 AND type = 'INVOICE_CREATED'"),
    ("I4", "shipped", "UPDATE shipment.shipments SET state = 'refused' WHERE order_id = $1"),
    ("I4", "declined", "UPDATE billing.payments SET state = 'captured' WHERE order_id = $1"),
    (
        "I5",
        None,
        """
        INSERT INTO email.mails SELECT gen_random_uuid(), $1, stage, recipient, event, written_at, state,
            claimed_until, attempts, last_error, message_id, outcome, sent_at FROM email.mails LIMIT 1""",
    ),
    (
        "I5",
        None,
        """
        INSERT INTO provider.charges SELECT 'ch_ghost', 'ghost', gen_random_uuid(), $1, amount, currency,
            payment_method, 'failed', 'card_declined', created_at FROM provider.charges LIMIT 1""",
    ),
    (
        "I6",
        "shipped",
        """
        INSERT INTO provider.charges SELECT 'ch_second', 'second', payment_id, order_id, amount, currency,
            payment_method, status, decline_code, created_at FROM provider.charges WHERE order_id = $1""",
    ),
    (
        "I6",
        "shipped",
        """
        UPDATE provider.charges SET key_hash = repeat('a', 64) WHERE order_id = $1;
        INSERT INTO provider.charges SELECT 'ch_again', 'again', gen_random_uuid(), gen_random_uuid(), amount,
            currency, payment_method, status, decline_code, created_at - interval '29 days', 'again',
            key_hash
        FROM provider.charges WHERE order_id = $1""",
    ),
    (
        "I8",
        "shipped",
        """
        INSERT INTO billing.recovered_charges SELECT id, 'simulated', payment_id, order_id, NULL, NULL,
            amount, currency, created_at, 'refund', amount, gen_random_uuid()
        FROM provider.charges WHERE order_id = $1""",
    ),
    ("I7", "shipped", "UPDATE provider.charges SET amount = amount + 1 WHERE order_id = $1"),
    (
        "I7",
        "refunded",
        """
        UPDATE provider.refunds SET amount = amount - 1
        WHERE charge_id = (SELECT id FROM provider.charges WHERE order_id = $1)""",
    ),
    ("I8", "shipped", "DELETE FROM provider.charges WHERE order_id = $1"),
    ("I8", "declined", "UPDATE provider.charges SET status = 'succeeded' WHERE order_id = $1"),
    ("I8", "shipped", FREE),
    ("I9", "shipped", FREE),
    ("I8", "refunded", FREE),
    (
        "I8",
        "shipped",
        f"""
        UPDATE billing.payments SET provider = 'none', provider_reference = 'none' WHERE order_id = $1;
        {FORGET_CHARGE}""",
    ),
    (
        "I8",
        "shipped",
        f"""
        {FREE};
        UPDATE billing.payments SET provider = 'stripe', provider_reference = 'pi_1' WHERE order_id = $1;
        {FORGET_CHARGE}""",
    ),
    ("I9", "shipped", "UPDATE provider.charges SET currency = 'USD' WHERE order_id = $1"),
    ("I9", "declined", "UPDATE billing.payments SET amount = amount + 1 WHERE order_id = $1"),
    (
        "I10",
        "refunded",
        """
        UPDATE provider.refunds SET amount = amount * 2
        WHERE charge_id = (SELECT id FROM provider.charges WHERE order_id = $1)""",
    ),
    (
        "I10",
        "refunded",
        """
        INSERT INTO provider.refunds SELECT 're_second', 'second', refund_id, charge_id, amount, created_at
        FROM provider.refunds WHERE charge_id = (SELECT id FROM provider.charges WHERE order_id = $1)""",
    ),
    (
        "I10",
        "refunded",
        """
        DELETE FROM provider.refunds
        WHERE charge_id = (SELECT id FROM provider.charges WHERE order_id = $1)""",
    ),
    (
        "I11",
        "declined",
        f"""
        UPDATE billing.payments SET state = 'pending', created_at = now() - {SHIFT}, last_error = 'No answer.'
        WHERE order_id = $1""",
    ),
    ("I12", "shipped", 'DELETE FROM "order".outbox WHERE $1 = ANY(order_ids)'),
    (
        "I12",
        None,
        """
        UPDATE "order".outbox SET order_ids = order_ids || $1, event_ids = event_ids || gen_random_uuid()
        WHERE id = (SELECT id FROM "order".outbox LIMIT 1)""",
    ),
    (
        "I13",
        "shipped",
        """
        DELETE FROM shipment.inbox WHERE event_id IN (
            SELECT unnest(event_ids) FROM billing.outbox WHERE $1 = ANY(order_ids))""",
    ),
    (
        "I14",
        "shipped",
        """
        DELETE FROM email.inbox WHERE event_id = (
            SELECT id FROM email.mails WHERE order_id = $1 AND stage = 'SHIPPED')""",
    ),
    (
        "I14",
        "declined",
        """
        DELETE FROM "order".inbox WHERE event_id = (
            SELECT event_id FROM "order".timeline WHERE order_id = $1 AND type = 'PAYMENT_FAILED')""",
    ),
    ("I14", None, "ALTER TABLE billing.payments DROP CONSTRAINT payments_order_id_key"),
    (
        "I15",
        "shipped",
        """
        UPDATE email.mails SET event = convert_to(replace(convert_from(event, 'UTF8'), 'Ana', 'Eve'), 'UTF8')
        WHERE order_id = $1 AND stage = 'SHIPPED'""",
    ),
    (
        "I15",
        None,
        """
        INSERT INTO invoice.outbox SELECT gen_random_uuid(), type, body, event_ids, order_ids, created_at,
            published_at, state, claimed_until FROM "order".outbox LIMIT 1""",
    ),
    ("I16", "shipped", "DELETE FROM shipment.shipments WHERE order_id = $1"),
    ("I16", "declined", "DELETE FROM email.mails WHERE order_id = $1 AND stage = 'PAYMENT_FAILED'"),
    (
        "I17",
        "shipped",
        """
        UPDATE shipment.outbox SET state = 'pending', claimed_until = now() - interval '1 hour'
        WHERE $1 = ANY(order_ids)""",
    ),
    (
        "I17",
        "refunded",
        f"""
        UPDATE email.mails SET state = 'pending', claimed_until = now() - {SHIFT}
        WHERE order_id = $1 AND stage = 'PAYMENT_REFUNDED'""",
    ),
    (
        "I18",
        "shipped",
        """
        ALTER TABLE invoice.invoices DISABLE TRIGGER USER;
        UPDATE invoice.invoices SET serial = serial + 10 WHERE order_id = $1;
        ALTER TABLE invoice.invoices ENABLE TRIGGER USER""",
    ),
    ("I18", None, "UPDATE invoice.invoice_counters SET last = last + 1"),
    (
        "I18",
        None,
        """
        INSERT INTO invoice.lost_numbers (year, first, last) SELECT year, last + 1, last + 5
        FROM invoice.invoice_counters""",
    ),
    (
        "I18",
        "shipped",
        """
        INSERT INTO invoice.lost_numbers (year, first, last)
        SELECT year, serial, serial FROM invoice.invoices WHERE order_id = $1;
        UPDATE invoice.invoice_counters SET last = last + 1""",
    ),
    (
        "I19",
        "shipped",
        """
        ALTER TABLE invoice.invoices DISABLE TRIGGER USER;
        UPDATE invoice.invoices SET
            snapshot = convert_to(replace(convert_from(snapshot, 'UTF8'), 'Mug', 'Jug'), 'UTF8')
        WHERE order_id = $1;
        ALTER TABLE invoice.invoices ENABLE TRIGGER USER""",
    ),
    ("I19", None, "ALTER TABLE invoice.invoices DISABLE TRIGGER USER"),
    (
        "I20",
        "declined",
        """
        INSERT INTO shipment.shipments (id, order_id, paid, state, claimed_until)
        VALUES (gen_random_uuid(), $1, '', 'shipped', now())""",
    ),
    ("I21", "shipped", "UPDATE email.mails SET recipient = 'eve@example.com' WHERE order_id = $1"),
    ("I21", "shipped", "UPDATE email.mails SET state = 'dead' WHERE order_id = $1 AND stage = 'SHIPPED'"),
    ("I21", "shipped", "UPDATE email.mails SET outcome = NULL WHERE order_id = $1 AND stage = 'SHIPPED'"),
]


@pytest.mark.parametrize(("invariant", "kind", "damage"), PLANTED)
async def test_a_planted_breach_is_found_with_its_order(
    journeyed: str, invariant: str, kind: str | None, damage: str
) -> None:
    connection = await asyncpg.connect(journeyed.replace("+asyncpg", ""))
    order_id = await order_called(connection, kind) if kind else uuid.uuid4()
    await connection.execute(damage.replace("$1", f"'{order_id}'::uuid"))
    await connection.close()
    report = await found_in(journeyed)
    found = [breach for breach in report.breaches if breach.invariant == invariant]
    assert found, report.breaches
    assert not report.holds
    if kind and invariant not in {"I7", "I18", "I15"}:  # their breaches are not about one order
        assert order_id in {order for breach in found for order in breach.order_ids}


async def test_a_refund_that_a_person_made_by_hand_is_no_breach(journeyed: str) -> None:
    connection = await asyncpg.connect(journeyed.replace("+asyncpg", ""))
    order_id = await order_called(connection, "refunded")
    await connection.execute("DELETE FROM provider.refunds")
    await connection.execute("UPDATE billing.refunds SET by_hand = true WHERE order_id = $1", order_id)
    await connection.close()
    assert (await found_in(journeyed)).breaches == ()


@pytest.mark.parametrize("kind", ["shipped", "refunded"])
async def test_an_order_with_a_total_of_0_needs_no_charge(journeyed: str, kind: str) -> None:
    connection = await asyncpg.connect(journeyed.replace("+asyncpg", ""))
    order_id = await order_called(connection, kind)
    await connection.execute(f"{FREE};{FORGET_CHARGE}".replace("$1", f"'{order_id}'::uuid"))
    await connection.close()
    assert (await found_in(journeyed)).breaches == ()


@pytest.mark.parametrize("charged", [False, True])
async def test_an_order_with_a_total_of_0_needs_no_charge_at_stripe_and_may_not_have_one(
    journeyed: str, charged: bool
) -> None:
    connection = await asyncpg.connect(journeyed.replace("+asyncpg", ""))
    order_id = await order_called(connection, "shipped")
    await connection.execute(FREE.replace("$1", f"'{order_id}'::uuid"))
    payment_id = await connection.fetchval("SELECT id FROM billing.payments WHERE order_id = $1", order_id)
    await connection.close()
    async with stripe_server() as server, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        if charged:
            intent = {
                "amount": 4657,
                "currency": "brl",
                "payment_method": "pm_card_visa",
                "confirm": "true",
                "metadata[payment_id]": str(payment_id),
                "metadata[order_id]": str(order_id),
            }
            (await http.post("/v1/payment_intents", data=intent)).raise_for_status()
        target = Target(journeyed, None)
        report = await audit(target, ledger=StripeLedger("sk_test_1", server.url), quiet=True)
    found = {breach.invariant for breach in report.breaches if order_id in breach.order_ids}
    assert found == ({"I8", "I9"} if charged else set())


async def test_numbers_recorded_as_lost_are_no_gap(journeyed: str) -> None:
    connection = await asyncpg.connect(journeyed.replace("+asyncpg", ""))
    await connection.execute("""
        INSERT INTO invoice.lost_numbers (year, first, last) SELECT year, last + 1, last + 5
        FROM invoice.invoice_counters;
        UPDATE invoice.invoice_counters SET last = last + 5""")
    await connection.close()
    assert (await found_in(journeyed)).breaches == ()


async def test_a_refund_that_failed_at_the_provider_gave_nothing_back(journeyed: str) -> None:
    connection = await asyncpg.connect(journeyed.replace("+asyncpg", ""))
    await connection.execute("UPDATE provider.refunds SET status = 'failed'")
    await connection.close()
    assert {breach.invariant for breach in (await found_in(journeyed)).breaches} == {"I7", "I10"}


@pytest.mark.parametrize(("days", "twice"), [(29, True), (31, False)])
async def test_a_key_used_again_after_30_days_makes_another_order(
    journeyed: str, days: int, twice: bool
) -> None:
    connection = await asyncpg.connect(journeyed.replace("+asyncpg", ""))
    order_id = await order_called(connection, "shipped")
    await connection.execute(f"""
        UPDATE provider.charges SET key_hash = repeat('a', 64) WHERE order_id = '{order_id}';
        INSERT INTO provider.charges SELECT 'ch_long_ago', 'long ago', gen_random_uuid(), gen_random_uuid(),
            amount, currency, payment_method, status, decline_code, created_at - interval '{days} days',
            'long ago', key_hash
        FROM provider.charges WHERE order_id = '{order_id}'""")
    await connection.close()
    found = {breach.invariant for breach in (await found_in(journeyed)).breaches}
    assert ("I6" in found) is twice


async def test_an_invoice_without_the_key_hash_of_its_order_is_no_breach(journeyed: str) -> None:
    connection = await asyncpg.connect(journeyed.replace("+asyncpg", ""))
    await connection.execute("""
        UPDATE "order".orders SET snapshot = convert_to((convert_from(snapshot, 'UTF8')::jsonb
            || jsonb_build_object('key_hash', repeat('a', 64)))::text, 'UTF8')""")
    await connection.close()
    assert (await found_in(journeyed)).breaches == ()


async def test_an_invoice_without_the_payment_method_of_an_order_of_version_1_is_no_breach(
    journeyed: str,
) -> None:
    connection = await asyncpg.connect(journeyed.replace("+asyncpg", ""))
    await connection.execute("""
        UPDATE "order".orders SET snapshot = convert_to((convert_from(snapshot, 'UTF8')::jsonb
            || '{"payment_method": "pm_card_visa"}')::text, 'UTF8')""")
    await connection.close()
    assert (await found_in(journeyed)).breaches == ()


async def test_work_in_transit_is_no_breach_until_it_is_overdue(journeyed: str) -> None:
    connection = await asyncpg.connect(journeyed.replace("+asyncpg", ""))
    order_id = await order_called(connection, "shipped")
    await connection.execute(
        "UPDATE shipment.outbox SET state = 'pending', published_at = NULL, claimed_until = now() "
        "WHERE $1 = ANY(order_ids)",
        order_id,
    )
    await connection.execute(
        'DELETE FROM "order".timeline WHERE order_id = $1 AND type = $2', order_id, "SHIPPED"
    )
    await connection.execute("UPDATE shipment.shipments SET settled_at = now() WHERE order_id = $1", order_id)
    await connection.execute(
        'DELETE FROM "order".inbox USING shipment.outbox '
        "WHERE event_id = ANY(event_ids) AND $1 = ANY(order_ids)",
        order_id,
    )
    await connection.execute('UPDATE "order".timeline SET time = now()')
    assert (await found_in(journeyed, quiet=False)).breaches == ()
    for table in ("shipment.outbox SET claimed_until", "shipment.shipments SET settled_at"):
        await connection.execute(f"UPDATE {table} = now() - {SHIFT}")
    await connection.close()
    assert {breach.invariant for breach in (await found_in(journeyed, quiet=False)).breaches} >= {"I4", "I17"}


async def test_dead_events_are_reported_and_are_no_breach(journeyed: str) -> None:
    connection = await asyncpg.connect(journeyed.replace("+asyncpg", ""))
    await connection.execute(
        "INSERT INTO invoice.parked (id, type, body, reason, state, claimed_until) "
        "VALUES (gen_random_uuid(), 'unknown', 'x', 'invalid_event', 'dead', now())"
    )
    await connection.close()
    report = await found_in(journeyed)
    assert report.holds
    assert report.dead == {"invoice": 1}
    assert "orderflow dead list" in report.notes[0]


async def test_missing_queues_and_missing_consumers_are_breaches(journeyed: str, rabbitmq: Broker) -> None:
    bindings = {name: [type_of(event) for event in load(name).handlers] for name in SERVICES}
    await declare(rabbitmq.url, {name: types for name, types in bindings.items() if name != "billing"})
    try:
        report = await audit(Target(journeyed, rabbitmq.url), ledger=ledger_of(journeyed))
    finally:
        await rabbitmq.remove("", *SERVICES)
    sentences = [breach.sentence for breach in report.breaches]
    assert "billing has no queue: run 'orderflow migrate'." in sentences
    assert any("has no consumer" in sentence for sentence in sentences)


async def orderflow_audit(*arguments: str, **environment: str) -> tuple[int, str]:
    unset = {"DATABASE_URL": "", "BROKER_URL": "", "STATE": "", "PAYMENT_PROVIDER": ""}
    result = await asyncio.to_thread(CliRunner().invoke, app, ["audit", *arguments], env=unset | environment)
    return result.exit_code, result.output


async def test_the_command_prints_text_or_json_and_its_exit_status_fits(journeyed: str) -> None:
    status, said = await orderflow_audit("--quiet", DATABASE_URL=journeyed)
    assert status == 0, said
    assert "✓ I6   At most one successful charge per order" in said
    assert "Every promise is kept." in said
    connection = await asyncpg.connect(journeyed.replace("+asyncpg", ""))
    order_id = await order_called(connection, "shipped")
    await connection.execute("DELETE FROM provider.charges WHERE order_id = $1", order_id)
    await connection.close()
    status, said = await orderflow_audit("--quiet", DATABASE_URL=journeyed)
    assert status == 1
    assert "✗ I8" in said
    assert str(order_id) in said
    status, said = await orderflow_audit("--quiet", "--json", DATABASE_URL=journeyed)
    assert status == 1
    document = json.loads(said)
    assert document["holds"] is False
    assert str(order_id) in {order for breach in document["breaches"] for order in breach["order_ids"]}


async def test_a_database_that_does_not_answer_is_an_error_without_a_traceback() -> None:
    status, said = await orderflow_audit(DATABASE_URL="postgresql://nobody@127.0.0.1:9/orderflow")
    assert status == 1
    assert "does not answer" in said
    assert "Traceback" not in said


async def test_the_embedded_system_is_audited_while_it_runs(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as (_, api):
        placed = await api.post("/orders", json=ORDER)
        await finished(api, placed.json()["id"])
        status, said = await orderflow_audit(STATE=str(tmp_path / "state"))
        assert status == 0, said
        assert "1 orders checked" in said
