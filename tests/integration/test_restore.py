"""A backup is restored: after `orderflow restore` nobody has paid twice, and no number is used twice."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from sqlalchemy import make_url
from typer.testing import CliRunner

from ops.audit.audit import audit
from ops.audit.ledger import ledger_of
from ops.main import app
from ops.migrate import PROVIDER, ROLES, migrate, url_for
from ops.services import SERVICES
from ops.target import Target
from sandbox.stripe.faults import Behaviour, Step
from services.billing import simulated
from services.billing.domain import derive_id
from services.billing.provider import ChargeCaptured, RefundRequest
from services.billing.stripe import provider as stripe_provider
from tests.conftest import new_database
from tests.embedded import finished, running
from tests.factories import an_order
from tests.integration.conftest import ORDER
from tests.integration.test_billing_restored import a_charge
from tests.stripe_server import stripe_server
from tests.waiting import eventually

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # from Stripe's SDK

REFUNDED = ORDER["shipping_address"] | {"country": "AQ"}


async def restore(url: str, *arguments: str, status: int = 0, apply: bool = False) -> str:
    """The output of `orderflow restore`."""
    environment = {"DATABASE_URL": url, "BROKER_URL": "", "STATE": "", "ORDERFLOW_ACTOR": ""}
    words = ("restore", *arguments, *(("--apply", "--as", "Ana") if apply else ()))
    result = await asyncio.to_thread(CliRunner().invoke, app, words, env=environment)
    assert result.exit_code == status, result.output
    return result.output


@asynccontextmanager
async def connected(url: str) -> "AsyncIterator[asyncpg.Connection[Any]]":
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        yield connection
    finally:
        await connection.close()


class Backup:
    """A copy of the database that can replace it; the provider keeps its current ledger."""

    def __init__(self, server: str, url: str) -> None:
        self._server = server
        self._url = url
        self._name = str(make_url(url).database)
        self._copy = f"{self._name}_backup"

    async def make(self) -> None:
        async with connected(self._server) as server:
            await server.execute(f'CREATE DATABASE "{self._copy}" TEMPLATE "{self._name}"')

    async def restore(self) -> None:
        async with connected(self._url) as database:
            ledger = {
                table: await database.fetch(f"SELECT * FROM provider.{table}")
                for table in ("charges", "refunds")
            }
        async with connected(self._server) as server:
            await server.execute(f'DROP DATABASE "{self._name}" WITH (FORCE)')
            await server.execute(f'ALTER DATABASE "{self._copy}" RENAME TO "{self._name}"')
        async with connected(self._url) as database:
            await database.execute("TRUNCATE provider.charges, provider.refunds")
            for table, rows in ledger.items():
                await database.copy_records_to_table(table, schema_name="provider", records=rows)


async def placed(api: httpx.AsyncClient, key: str, **changes: Any) -> str:
    answer = await api.post(
        "/orders", json=ORDER | {"reference": key} | changes, headers={"Idempotency-Key": key}
    )
    return str(answer.raise_for_status().json()["id"])


WAITING = " UNION ALL ".join(
    [f"SELECT FROM \"{service}\".outbox WHERE state = 'pending'" for service in SERVICES]
    + [f"SELECT FROM {table} WHERE state = 'pending'" for table in ("billing.refunds", "email.mails")]
)


async def finished_orders(api: httpx.AsyncClient, url: str, orders: Sequence[str]) -> list[dict[str, Any]]:
    """The orders, once none of them has pending work."""
    ended = [await finished(api, order) for order in orders]
    async with connected(url) as database:
        await eventually(lambda: database.fetchval(f"SELECT count(*) FROM ({WAITING}) w"), lambda n: not n)
    return ended


def mailed_numbers(state: Path) -> dict[str, set[str]]:
    """For each invoice number, the orders that it was mailed for."""
    found: dict[str, set[str]] = {}
    for file in (state / "mails").iterdir():
        mail = message_from_bytes(file.read_bytes(), policy=default)
        body = mail.get_body(("plain",))
        assert body
        for number in re.findall(r"\b20\d\d-\d{6}\b", body.get_content()):
            found.setdefault(number, set()).add(file.name[:36])
    return found


async def paid(url: str) -> dict[str, int]:
    """For each order reference, the amount charged less the amount refunded, by the provider's ledger."""
    async with connected(url) as database:
        rows = await database.fetch("""
            SELECT c.order_reference, sum(c.amount)::bigint
                - coalesce(sum((SELECT sum(r.amount) FROM provider.refunds r WHERE r.charge_id = c.id)), 0)
                AS held
            FROM provider.charges c WHERE status = 'succeeded' GROUP BY c.order_reference""")
    return {row["order_reference"]: int(row["held"]) for row in rows}


async def test_lost_orders_that_are_placed_again_are_paid_once_and_numbers_continue(
    postgres: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    async with new_database(postgres) as url:
        backup = Backup(postgres, url)
        async with running(state, DATABASE_URL=url) as (_, api):
            known = [await placed(api, f"before-{n}") for n in range(3)]
            await finished_orders(api, url, known)
        await backup.make()
        async with running(state, DATABASE_URL=url) as (_, api):
            lost = [await placed(api, f"after-{n}") for n in range(6)]
            lost.append(await placed(api, "refunded", shipping_address=REFUNDED))
            [*_, last, _refunded] = await finished_orders(api, url, lost)
        highest = max(mailed_numbers(state))
        await backup.restore()

        # The services are started before the restore: billing logs errors, and one customer pays again.
        async with running(state, DATABASE_URL=url) as (process, api):
            await process.says("charges that billing does not know")
            early = await placed(api, "after-0")
            await finished_orders(api, url, [early])
            said = await restore(url, "--last-invoice", highest, apply=True, status=1)
            assert "Stop these services first" in said
        report = await audit(Target(url, None), ledger=ledger_of(url), quiet=True)
        [twice] = [breach for breach in report.breaches if "paid twice" in breach.sentence]
        assert twice.invariant == "I6"
        assert all(text in twice.sentence for text in (early, lost[0], "(after-0)"))

        said = await restore(url, "--last-invoice", highest)
        assert said.count("it is refunded.") == 6
        assert "it was refunded already." in said
        assert "Nothing was changed." in said
        assert set((await paid(url)).values()) == {last_total(last), 2 * last_total(last), 0}
        said = await restore(url, apply=True, status=1)
        assert f"the highest here is {highest[:5]}000004" in said
        for _ in range(2):  # the second run changes nothing
            said = await restore(url, "--last-invoice", highest, "--note", "the disk", apply=True)
        assert "The provider has no charge and no refund that is unknown here." in said
        assert "no number is lost" in said

        async with running(state, DATABASE_URL=url) as (process, api):
            repeats = [await placed(api, f"after-{n}") for n in range(6)]
            assert repeats[0] == early
            await finished_orders(api, url, repeats)
            new = await finished_orders(api, url, [await placed(api, "new")])
        assert "does not know" not in process.said
        assert set((await paid(url)).values()) == {last_total(last), 0}
        assert (await paid(url))["refunded"] == 0
        numbers = mailed_numbers(state)
        again = {number for number, orders in numbers.items() if len(orders) > 1}
        assert again == {f"{highest[:5]}000004"}  # mailed before the restore: that can't be undone
        assert new[0]["invoice"]["number"] == f"{highest[:5]}{int(highest[5:]) + 6:06d}"
        report = await audit(Target(url, None), ledger=ledger_of(url), quiet=True)
        assert report.breaches == ()
        async with connected(url) as database:
            acts = await database.fetch(
                "SELECT actor, reason, note FROM billing.interventions UNION ALL "
                "SELECT actor, reason, note FROM invoice.interventions"
            )
        assert {(act["actor"], act["note"]) for act in acts} == {("Ana", "the disk")}
        assert sorted(act["reason"].split(":")[0] for act in acts) == ["lost", *["refund"] * 7]


def last_total(order: dict[str, Any]) -> int:
    return int(order["total"].replace(".", ""))


# The backup was made in the middle of an order's life

FORGET: "dict[str, tuple[tuple[str, ...], str]]" = {
    # case: the events that the backup has, and SQL for the other rows that it lacks
    "invoice lost": (
        ("ORDER_CREATED",),
        """
        ALTER TABLE invoice.invoices DISABLE TRIGGER immutable;
        DELETE FROM invoice.invoices WHERE order_id = '{order}';
        ALTER TABLE invoice.invoices ENABLE TRIGGER immutable;
        UPDATE invoice.invoice_counters SET last = last - 1;
        DELETE FROM shipment.shipments WHERE order_id = '{order}';
        DELETE FROM billing.payments WHERE order_id = '{order}'""",
    ),
    "payment lost": (
        ("ORDER_CREATED", "INVOICE_CREATED"),
        """
        DELETE FROM shipment.shipments WHERE order_id = '{order}';
        DELETE FROM billing.payments WHERE order_id = '{order}'""",
    ),
    "payment pending": (
        ("ORDER_CREATED", "INVOICE_CREATED"),
        """
        DELETE FROM shipment.shipments WHERE order_id = '{order}';
        UPDATE billing.payments SET state = 'pending', claimed_until = now(), provider = NULL,
            provider_reference = NULL, settled_at = NULL WHERE order_id = '{order}'""",
    ),
    "shipment lost": (
        ("ORDER_CREATED", "INVOICE_CREATED", "PAYMENT_CONFIRMED"),
        "DELETE FROM shipment.shipments WHERE order_id = '{order}'",
    ),
    "refund lost": (
        ("ORDER_CREATED", "INVOICE_CREATED", "PAYMENT_CONFIRMED"),
        """
        DELETE FROM billing.refunds WHERE order_id = '{order}';
        DELETE FROM shipment.shipments WHERE order_id = '{order}'""",
    ),
    "refund pending": (
        ("ORDER_CREATED", "INVOICE_CREATED", "PAYMENT_CONFIRMED", "SHIPMENT_ERROR"),
        """
        UPDATE billing.refunds SET state = 'pending', claimed_until = now(), provider_reference = NULL,
            settled_at = NULL WHERE order_id = '{order}'""",
    ),
}


async def forget(database: "asyncpg.Connection[Any]", order: str, known: Sequence[str], rows: str) -> None:
    """Makes the records those of a backup in which the last known event is still to be published."""
    to_receive: list[Any] = []
    for service in SERVICES:
        outbox = f'"{service}".outbox'
        forgotten = await database.fetch(
            f"DELETE FROM {outbox} WHERE $1 = ANY(order_ids) AND type <> ALL($2) RETURNING event_ids",
            *(uuid.UUID(order), known),
        )
        sent_again = await database.fetch(
            f"UPDATE {outbox} SET state = 'pending', claimed_until = now() "
            "WHERE $1 = ANY(order_ids) AND type = $2 RETURNING event_ids",
            *(uuid.UUID(order), known[-1]),
        )
        to_receive += [event for row in (*forgotten, *sent_again) for event in row["event_ids"]]
    for service in SERVICES:
        await database.execute(f'DELETE FROM "{service}".inbox WHERE event_id = ANY($1)', to_receive)
    await database.execute("DELETE FROM email.mails WHERE id = ANY($1)", to_receive)
    await database.execute(
        "DELETE FROM \"order\".timeline WHERE event_id = ANY($1) AND type <> 'ORDER_CREATED'", to_receive
    )
    await database.execute(rows.format(order=order))


async def test_an_order_in_the_backup_continues_from_there_and_is_paid_once(
    postgres: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    async with new_database(postgres) as url, connected(url) as database:
        orders: dict[str, str] = {}
        async with running(state, DATABASE_URL=url) as (_, api):
            for stage in reversed(FORGET):  # one by one, so that each event is in a message of its own
                changes = {"shipping_address": REFUNDED} if "refund" in stage else {}
                orders[stage] = await placed(api, stage, **changes)
                await finished(api, orders[stage])
        for stage, (known, rows) in FORGET.items():
            await forget(database, orders[stage], known, rows)
        # As if the provider had forgotten the keys: only the recovered charges prevent second ones.
        await database.execute(
            "UPDATE provider.charges SET key = gen_random_uuid()::text, payment_id = gen_random_uuid() "
            "WHERE order_reference IN ('invoice lost', 'payment lost')"
        )
        highest = max(mailed_numbers(state))

        said = await restore(url, "--last-invoice", highest, apply=True)
        assert said.count("its order is here, and its payment is lost: it pays for the order.") == 2
        assert f"refund of order {orders['refund lost']}: not known here" in said
        assert f"{highest} to {highest} are lost" in said
        async with running(state, DATABASE_URL=url) as (process, api):
            ends = await finished_orders(api, url, list(orders.values()))
        assert "does not know" not in process.said

        total = last_total(ends[0])
        assert await paid(url) == {stage: 0 if "refund" in stage else total for stage in FORGET}
        assert await database.fetchval("SELECT count(*) FROM provider.charges") == len(FORGET)
        assert {number for number, of in mailed_numbers(state).items() if len(of) > 1} == set()
        report = await audit(Target(url, None), ledger=ledger_of(url), quiet=True)
        assert report.breaches == ()


async def test_a_charge_that_was_left_pays_for_the_order_placed_again(postgres: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with new_database(postgres) as url:
        backup = Backup(postgres, url)
        async with running(state, DATABASE_URL=url):
            pass
        await backup.make()
        async with running(state, DATABASE_URL=url) as (_, api):
            lost = [await placed(api, key) for key in ("shipped", "again", "other amount")]
            [order, *_] = await finished_orders(api, url, lost)
        await backup.restore()
        year = order["invoice"]["number"][:5]
        said = await restore(url, "--leave", "--last-invoice", f"{year}000003", apply=True)
        assert said.count("it is left, and pays if the order is placed again") == 3
        said = await restore(url, "--refund", "--last-invoice", f"{year}000003", apply=True)
        assert said.count("an earlier run kept it.") == 3

        async with running(state, DATABASE_URL=url) as (_, api):
            again = await placed(api, "again")
            cheaper = await placed(api, "other amount", items=[CHEAPER])
            [end, _] = await finished_orders(api, url, [again, cheaper])
        assert end["status"] == "SHIPPED"
        total = last_total(order)
        assert await paid(url) == {"shipped": total, "again": total, "other amount": total + 100}
        report = await audit(Target(url, None), ledger=ledger_of(url), quiet=True)
        [twice] = report.breaches
        assert "1 customers have paid twice" in twice.sentence
        assert all(text in twice.sentence for text in (lost[2], cheaper, "(other amount)"))

        last = ("--last-invoice", f"{year}000005")
        said = await restore(url, "--refund", "--order", lost[0], *last, apply=True)
        assert said.count("it is refunded.") == 1
        said = await restore(url, "--leave", *last, apply=True)
        assert said.count("paid again with the same Idempotency-Key: it is refunded.") == 1
        assert await paid(url) == {"shipped": 0, "again": total, "other amount": 100}
        report = await audit(Target(url, None), ledger=ledger_of(url), quiet=True)
        assert report.breaches == ()


CHEAPER = {"sku": "PIN-01", "name": "Pin", "quantity": 1, "unit_price": "1.00", "tax_rate": "0"}


# At Stripe


async def test_charges_at_stripe_are_refunded_once_even_if_answers_are_lost(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(fresh_database, {role: role for role in ROLES})
    lost = [an_order(reference=f"WEB-{n}") for n in range(4)]
    unanswered, refused, by_hand, before = lost
    last = ("--last-invoice", "2026-000004")
    async with stripe_server() as server, stripe_provider.connect("sk_test_1", server.url) as stripe:
        for order in lost:
            captured = await stripe.charge(a_charge(order))
            assert isinstance(captured, ChargeCaptured)
            if order is before:
                refund_id = uuid.uuid4()
                await stripe.refund(RefundRequest("k", refund_id, order.id, captured.reference, 4657, "BRL"))
        for name, value in (
            ("PAYMENT_PROVIDER", "stripe"),
            ("STRIPE_API_KEY", "sk_test_1"),
            ("STRIPE_BASE_URL", server.url),
        ):
            monkeypatch.setenv(name, value)

        server.begin_outage()
        said = await restore(fresh_database, *last, apply=True, status=1)
        assert "Run it again: no step is done twice." in said
        server.behave()
        server.fail(unanswered.id, Step.REFUND, Behaviour.RESET)
        server.fail(refused.id, Step.REFUND, Behaviour.ERROR)
        server.fail(by_hand.id, Step.REFUND, Behaviour.ERROR)
        said = await restore(fresh_database, *last, apply=True, status=1)
        assert said.count("it is refunded.") == 3
        assert said.count("it was refunded already.") == 1
        assert "3 charges could not be refunded" in said
        report = await audit(Target(fresh_database, None), ledger=ledger_of(fresh_database), quiet=True)
        [still_there] = report.breaches
        assert "3 charges that 'orderflow restore' was to refund were not" in still_there.sentence

        server.forget_keys()  # a day later; meanwhile a person has refunded one at Stripe
        [intent] = server.of_order(by_hand.id)
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as person:
            answer = await person.post("/v1/refunds", data={"payment_intent": intent.id})
            assert answer.status_code == 200
        assert "Done." in await restore(fresh_database, *last, apply=True)
        assert [server.given_back(order.id) for order in lost] == [[4657]] * 4
        report = await audit(Target(fresh_database, None), ledger=ledger_of(fresh_database), quiet=True)
        assert report.breaches == ()


@pytest.mark.parametrize("payment_lost", [False, True])
async def test_a_charge_for_an_order_with_a_total_of_0_is_refunded(
    fresh_database: str, payment_lost: bool
) -> None:
    await migrate(fresh_database, {role: role for role in ROLES})
    order = an_order()
    async with simulated.connect(url_for(fresh_database, PROVIDER, PROVIDER)) as provider:
        assert isinstance(await provider.charge(a_charge(order)), ChargeCaptured)
    async with connected(fresh_database) as database:
        await database.execute('ALTER TABLE "order".orders DROP CONSTRAINT IF EXISTS orders_total_check')
        await database.execute(
            """INSERT INTO "order".orders (id, created_at, currency, total, snapshot)
            VALUES ($1, now(), 'BRL', 0, '')""",
            order.id,
        )
        if not payment_lost:
            await database.execute(
                "INSERT INTO billing.payments (id, order_id, amount, currency, snapshot, state, "
                "claimed_until, provider, provider_reference) "
                "VALUES ($1, $2, 0, 'BRL', '', 'captured', now(), 'none', 'none')",
                *(derive_id(order.id, "payment"), order.id),
            )
    said = await restore(fresh_database, "--last-invoice", "2026-000001", apply=True)
    assert f"46.57 BRL  order {order.id} (WEB-1042): its order has another payment: it is refunded" in said
    async with connected(fresh_database) as database:
        assert await database.fetchval("SELECT amount FROM provider.refunds") == order.total


async def test_a_refused_refund_is_reported_by_every_run(
    fresh_database: str,
) -> None:
    await migrate(fresh_database, {role: role for role in ROLES})
    last = ("--last-invoice", "2026-000002")
    fails, waits = an_order(), an_order()
    async with simulated.connect(url_for(fresh_database, PROVIDER, PROVIDER)) as provider:
        for order, payment_method in ((fails, "pm_card_refundFail"), (waits, "pm_card_pendingRefund")):
            assert isinstance(await provider.charge(a_charge(order, payment_method)), ChargeCaptured)
    said = await restore(fresh_database, *last, apply=True, status=1)
    assert "2 charges could not be refunded" in said
    assert f"of order {fails.id}" in said
    said = await restore(fresh_database, *last, apply=True, status=1)
    assert "1 charges could not be refunded" in said
    async with connected(fresh_database) as database:
        decided = await database.fetch("SELECT order_id, refund_reference FROM billing.recovered_charges")
        made = {row["order_id"]: row["refund_reference"] for row in decided}
        assert made[fails.id] is None
        assert made[waits.id].startswith("re_")
        assert await database.fetchval("SELECT count(*) FROM provider.refunds") == 2
