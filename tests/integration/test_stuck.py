"""`orderflow stuck`: delayed and late orders are listed with what they wait for and what to do."""

import asyncio
import json
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from ops.main import app
from ops.stuck.search import stuck_orders
from ops.stuck.waiting import KINDS, StuckOrder
from tests.embedded import finished, running
from tests.integration.conftest import ORDER, order_called

ANNOUNCEMENT = """
    DELETE FROM "order".timeline WHERE order_id = $1 AND type NOT IN ({kept});
    UPDATE "order".timeline SET time = now() - interval '1 hour' WHERE order_id = $1;
    UPDATE "order".orders SET created_at = now() - interval '1 hour' WHERE id = $1;"""
AT_ORDER = ANNOUNCEMENT.format(kept="'ORDER_CREATED'")
AT_INVOICE = ANNOUNCEMENT.format(kept="'ORDER_CREATED', 'INVOICE_CREATED'")
AT_PAYMENT = ANNOUNCEMENT.format(kept="'ORDER_CREATED', 'INVOICE_CREATED', 'PAYMENT_CONFIRMED'")
AT_ERROR = ANNOUNCEMENT.format(
    kept="'ORDER_CREATED', 'INVOICE_CREATED', 'PAYMENT_CONFIRMED', 'SHIPMENT_ERROR'"
)
FIRST_EVENT = "(SELECT event_id FROM \"order\".timeline WHERE order_id = $1 AND type = 'ORDER_CREATED')"
UNPUBLISHED = """
    UPDATE "order".outbox SET state = 'pending', last_error = 'broker away' WHERE $1 = ANY(order_ids);"""
UNHANDLED = f"DELETE FROM invoice.inbox WHERE event_id = {FIRST_EVENT};"
LATE_MAIL = """
    UPDATE email.mails SET state = 'pending', written_at = now() - interval '1 hour'
    WHERE order_id = $1 AND stage = 'SHIPPED';"""

MAIL_GIVEN_UP = """
    UPDATE email.mails SET state = 'refused', outcome = NULL, last_error = 'no answer',
        claimed_until = now() - interval '2 days', written_at = now() - interval '7 days'
    WHERE order_id = $1 AND stage = 'SHIPPED';"""


def parked(state: str) -> str:
    return f"""
        INSERT INTO invoice.parked
            (id, type, order_id, body, reason, state, claimed_until, attempts, last_error)
        VALUES ({FIRST_EVENT}, 'ORDER_CREATED', $1, '', 'Broken', '{state}', now(), 3, 'it broke');"""


def work(table: str, state: str) -> str:
    return f"""
        UPDATE {table} SET state = '{state}', last_error = 'no answer', last_failure = 'unknown', attempts = 2
        WHERE order_id = $1;"""


WAITING = {
    # kind: the order, the damage to its records, the service that it waits for
    "publishing": ("shipped", AT_ORDER + UNPUBLISHED, "order"),
    "handling": ("shipped", AT_ORDER + UNHANDLED, "invoice"),
    "retry": ("shipped", AT_ORDER + parked("retry"), "invoice"),
    "dead": ("shipped", AT_ORDER + parked("dead"), "invoice"),
    "discarded": ("shipped", AT_ORDER + parked("discarded"), "invoice"),
    "payment": ("shipped", AT_INVOICE + work("billing.payments", "pending"), "billing"),
    "refund": ("refunded", AT_ERROR + work("billing.refunds", "pending"), "billing"),
    "booking": ("shipped", AT_PAYMENT + work("shipment.shipments", "pending"), "shipment"),
    "dead work": ("shipped", AT_PAYMENT + work("shipment.shipments", "dead"), "shipment"),
    "nothing": ("shipped", AT_PAYMENT, "order"),
    "mail": ("shipped", LATE_MAIL, "email"),
    "mail given up": ("shipped", MAIL_GIVEN_UP, "email"),
}


async def stuck_in(url: str, damage: str, order_id: uuid.UUID, **changes: Any) -> list[StuckOrder]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute(damage.replace("$1", f"'{order_id}'::uuid"))
    found = await stuck_orders(connection, **changes)
    await connection.close()
    return found


async def id_of(url: str, reference: str) -> uuid.UUID:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    order_id = await order_called(connection, reference)
    await connection.close()
    return order_id


def test_every_kind_of_waiting_has_a_case() -> None:
    assert WAITING.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", WAITING)
async def test_a_stuck_order_is_listed_with_what_it_waits_for(journeyed: str, kind: str) -> None:
    reference, damage, service = WAITING[kind]
    order_id = await id_of(journeyed, reference)
    [stuck] = await stuck_in(journeyed, damage, order_id)
    assert stuck.id == order_id
    assert stuck.reference == reference
    [waiting] = [waiting for waiting in stuck.waits_for if waiting.kind == kind]
    assert waiting.service == service
    assert "{" not in waiting.description() + waiting.advice(order_id)
    if kind not in {"handling", "nothing", "mail"}:
        assert waiting.error in {"broker away", "it broke", "no answer"}
    tried_again = {"publishing", "retry", "payment", "refund", "booking", "mail"}
    assert (waiting.next_try is not None) == (kind in tried_again)


async def test_no_order_is_stuck_before_its_deadline(journeyed: str) -> None:
    order_id = await id_of(journeyed, "shipped")
    assert await stuck_in(journeyed, "SELECT 1", order_id) == []
    fresh = AT_INVOICE.replace("interval '1 hour'", "interval '1 minute'")
    assert await stuck_in(journeyed, fresh, order_id) == []
    [found] = await stuck_in(journeyed, "SELECT 1", order_id, older_than=timedelta(seconds=30))
    assert found.status == "INVOICE_CREATED"


UNTRIED = """
    UPDATE billing.payments SET delayed_for = '{outage}', last_failure = NULL, last_error = NULL
    WHERE state = 'pending';"""
DELAYED = {
    # case: the order, the damage to its records, the kind of waiting
    "failed": ("shipped", AT_INVOICE + work("billing.payments", "pending"), "payment"),
    "announced, but not tried": (
        "shipped",
        AT_INVOICE + work("billing.payments", "pending") + UNTRIED,
        "payment",
    ),
    "parked": ("shipped", AT_ORDER + parked("retry"), "retry"),
    "dead": ("shipped", AT_ORDER + parked("dead"), "dead"),
    "given up": ("refunded", AT_ERROR + work("billing.refunds", "dead"), "dead work"),
}


def waits_for(age: str) -> str:
    """SQL that sets how long every row of the journeys has waited."""
    tables = ("billing.payments", "billing.refunds", "invoice.parked")
    return "".join(f"UPDATE {table} SET waits_since = now() - interval '{age}';" for table in tables)


@pytest.mark.parametrize("case", DELAYED)
async def test_delayed_work_is_listed_after_a_minute(journeyed: str, case: str) -> None:
    reference, damage, kind = DELAYED[case]
    order_id = await id_of(journeyed, reference)
    damage = damage.replace("interval '1 hour'", "interval '70 seconds'")
    assert await stuck_in(journeyed, damage + waits_for("0 seconds"), order_id) == []
    [stuck] = await stuck_in(journeyed, waits_for("70 seconds"), order_id)
    assert stuck.id == order_id
    assert kind in {waiting.kind for waiting in stuck.waits_for}


async def test_work_that_an_outage_kept_from_being_tried_shows_the_outages_error(
    journeyed: str,
) -> None:
    order_id = await id_of(journeyed, "shipped")
    reference, damage, _ = DELAYED["announced, but not tried"]
    await stuck_in(journeyed, damage, order_id)
    probe = """
        UPDATE billing.payments SET state = 'pending', claimed_until = now() + interval '9 seconds',
            last_failure = 'outage', last_error = 'Stripe is away.'
        WHERE order_id <> $1 AND order_id IN (SELECT id FROM "order".orders WHERE reference = 'refunded')"""
    found = await stuck_in(journeyed, probe, order_id, older_than=timedelta(seconds=30))
    [stuck] = [order for order in found if order.reference == reference]
    [payment] = [waiting for waiting in stuck.waits_for if waiting.kind == "payment"]
    assert payment.error == "Stripe is away."


async def test_an_order_that_has_ended_is_not_stuck_because_of_a_dead_event(journeyed: str) -> None:
    order_id = await id_of(journeyed, "shipped")
    old = "UPDATE invoice.parked SET waits_since = now() - interval '1 hour';"
    assert await stuck_in(journeyed, parked("dead") + old, order_id) == []


async def orderflow_stuck(*arguments: str, **environment: str) -> tuple[int, str]:
    unset = {"DATABASE_URL": "", "STATE": ""}
    result = await asyncio.to_thread(CliRunner().invoke, app, ["stuck", *arguments], env=unset | environment)
    return result.exit_code, result.output


async def test_the_command_prints_text_or_json_and_its_exit_status_fits(journeyed: str) -> None:
    assert await orderflow_stuck(DATABASE_URL=journeyed) == (0, "No order is stuck.\n")
    order_id = await id_of(journeyed, "shipped")
    await stuck_in(journeyed, WAITING["payment"][1], order_id)
    status, said = await orderflow_stuck(DATABASE_URL=journeyed)
    assert status == 1
    assert f"{order_id} (shipped): INVOICE_CREATED for 60 minutes" in said
    assert "the payment provider has not confirmed the payment's outcome" in said
    assert "UTC, failed tries: 2, next try " in said
    assert "last error: no answer" in said
    assert "Stuck orders: 1." in said
    status, said = await orderflow_stuck("--json", DATABASE_URL=journeyed)
    assert status == 1
    [document] = json.loads(said)
    assert document["id"] == str(order_id)
    assert document["waits_for"][0]["attempts"] == 2
    assert (await orderflow_stuck("--older-than", "2h", DATABASE_URL=journeyed))[0] == 0
    for wrong in ("soon", "30", "2026-11-24"):
        status, said = await orderflow_stuck("--older-than", wrong, DATABASE_URL=journeyed)
        assert status == 2
        assert "90s, 30m, 2h" in said


async def test_it_works_on_the_embedded_system_while_it_runs(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as (_, api):
        placed = await api.post("/orders", json=ORDER)
        await finished(api, placed.json()["id"])
        assert await orderflow_stuck(STATE=str(tmp_path / "state")) == (0, "No order is stuck.\n")
