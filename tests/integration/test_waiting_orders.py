"""A waiting order is shown as such over HTTP, by `orderflow stuck` and in the log, until it goes on."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest

from chassis.application import application
from chassis.service import OpenService, open_service
from events import envelope
from events.contracts import Order, OrderDelayed, type_of
from events.journey import PAYMENT
from events.memory import MemoryBus
from events.participant import Participant
from ops import migrate
from ops.audit.audit import audit
from ops.audit.ledger import Ledger, LedgerCharge, LedgerRefund
from ops.dead import repository
from ops.owner_database import connect_as_owner
from ops.services import SERVICES, load
from ops.stuck.search import stuck_orders
from ops.stuck.waiting import StuckOrder
from ops.target import Target
from services.billing.domain import Payment, Refund
from services.shipment.domain import Shipment
from tests.factories import a_delay, an_order
from tests.order_service import a_new_order
from tests.stripe_server import StripeServer, stripe_server
from tests.waiting import eventually

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the SDK's own doing

KEY = "sk_test_waiting"
TABLES = {Payment: "billing.payments", Refund: "billing.refunds", Shipment: "shipment.shipments"}


class NoLedger(Ledger):
    """An empty ledger, for an audit that is not about the provider."""

    provider = "nobody"

    async def charges(self, since: datetime | None = None) -> AsyncGenerator[Sequence[LedgerCharge], None]:
        yield []

    async def refunds(self, since: datetime | None = None) -> AsyncGenerator[Sequence[LedgerRefund], None]:
        yield []


@dataclass
class Shop:
    """Every service on one bus, with the Stripe-like server."""

    url: str
    http: httpx.AsyncClient
    running: dict[str, OpenService]
    stripe: StripeServer

    async def place(self, **changes: Any) -> str:
        """Id of an order that is accepted."""
        answer = await self.http.post("/orders", json=a_new_order(**changes))
        assert answer.status_code == 201, answer.text
        assert answer.json()["waiting"] is None
        return str(answer.json()["id"])

    async def read(self, order_id: str) -> dict[str, Any]:
        """The order as its caller sees it."""
        order: dict[str, Any] = (await self.http.get(f"/orders/{order_id}")).raise_for_status().json()
        return order

    async def says(self, order_id: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The order, once the condition holds."""
        return await eventually(lambda: self.read(order_id), holds)

    async def rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Rows of any schema, read as the owner."""
        connection = await asyncpg.connect(self.url.replace("+asyncpg", ""))
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()

    async def has_rows(self, table: str, count: int) -> None:
        """Returns when the table has `count` rows."""
        await eventually(lambda: self.rows(f"SELECT FROM {table}"), lambda rows: len(rows) == count)

    async def a_minute_passes(self) -> None:
        """Makes everything that waits a minute older, and starts a sweep."""
        for table, state in (
            *((table, "pending") for table in TABLES.values()),
            *((f'"{service}".parked', "retry") for service in SERVICES),
        ):
            await self.rows(
                f"UPDATE {table} SET waits_since = waits_since - interval '70 s' WHERE state = '{state}'"
            )
        await self.sweep_now()

    async def claims_run_out(self) -> None:
        """Makes everything that waits due, and starts a sweep."""
        for table in TABLES.values():
            await self.rows(f"UPDATE {table} SET claimed_until = now() WHERE state = 'pending'")
        for service in SERVICES:
            await self.rows(f"UPDATE \"{service}\".parked SET claimed_until = now() WHERE state = 'retry'")
        await self.sweep_now()

    async def sweep_now(self) -> None:
        """Makes every participant sweep its tables."""
        for service in ("invoice", "billing", "shipment"):
            participant = self.running[service].participant
            for runner in (*participant.runners.values(), participant.retries):
                runner.sweep_now()

    async def delays(self) -> list[OrderDelayed]:
        """Every delay that was announced."""
        bodies = await self.rows(
            " UNION ALL ".join(
                f"SELECT body FROM \"{service}\".outbox WHERE type = 'ORDER_DELAYED'" for service in SERVICES
            )
        )
        return [
            event
            for row in bodies
            for event in envelope.decode(row["body"])[0]
            if isinstance(event, OrderDelayed)
        ]

    async def stuck(self) -> list[StuckOrder]:
        """The orders that `orderflow stuck` finds."""
        connection = await asyncpg.connect(self.url.replace("+asyncpg", ""))
        try:
            return await stuck_orders(connection)
        finally:
            await connection.close()


@asynccontextmanager
async def working(participant: Participant) -> AsyncIterator[None]:
    running = asyncio.create_task(participant.run())
    try:
        yield
    finally:
        participant.stop()
        await running


@pytest.fixture
async def shop(fresh_database: str) -> AsyncIterator[Shop]:
    passwords = {role: role for role in migrate.ROLES}
    await migrate.migrate(fresh_database, passwords)
    services = {name: load(name) for name in SERVICES}
    bus = MemoryBus({name: [type_of(event) for event in each.handlers] for name, each in services.items()})
    async with AsyncExitStack() as stack:
        stripe = await stack.enter_async_context(stripe_server())
        running: dict[str, OpenService] = {}
        for name, service in services.items():
            given: dict[str, Any] = {
                "database_url": migrate.url_for(fresh_database, name, passwords[name]),
                "database_pool": 3,
            }
            if name == "billing":
                given |= {
                    "payment_provider": "stripe",
                    "stripe_api_key": KEY,
                    "stripe_base_url": stripe.url,
                }
            if name == "shipment":
                given |= {"carrier_database_url": migrate.url_for(fresh_database, "carrier", "carrier")}
            if name == "email":
                given |= {"mail_record_only": True}
            running[name] = await stack.enter_async_context(
                open_service(service, service.settings(**given), bus)
            )
            await stack.enter_async_context(working(running[name].participant))
        app = httpx.ASGITransport(application(list(running.values())))
        http = httpx.AsyncClient(transport=app, base_url="http://shop", timeout=30)
        yield Shop(fresh_database, await stack.enter_async_context(http), running, stripe)
        stack.callback(bus.close)


def in_outage(shop: Shop, work: type) -> Callable[[], Awaitable[bool]]:
    async def probe() -> bool:
        return next(
            runner for kind, runner in shop.running["billing"].participant.runners.items() if kind is work
        ).in_outage

    return probe


OUTAGES: dict[str, tuple[Callable[[StripeServer], None], str]] = {
    "away": (StripeServer.begin_outage, "Stripe"),
    "wrong key": (lambda server: setattr(server.api, "api_key", "sk_another"), "does not accept the API key"),
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_while_the_provider_is_away_every_order_says_what_it_waits_for_until_it_is_back(
    shop: Shop, outage: str, caplog: pytest.LogCaptureFixture
) -> None:
    begin, error = OUTAGES[outage]
    begin(shop.stripe)
    first = await shop.place()
    await eventually(in_outage(shop, Payment), bool)
    orders = [first, await shop.place(), await shop.place()]  # two whose payment was not tried yet
    await shop.has_rows("billing.payments", len(orders))
    assert [(await shop.read(order_id))["waiting"] for order_id in orders] == [None] * 3
    assert await shop.stuck() == []

    with caplog.at_level(logging.WARNING):
        await shop.a_minute_passes()
        for order_id in orders:
            order = await shop.says(order_id, lambda order: order["waiting"] is not None)
            waiting = order["waiting"]
            assert (waiting["stage"], waiting["reason"]["code"]) == ("payment", "unavailable")
            assert waiting["reason"]["message"].startswith("The payment provider does not take requests")
            assert datetime.fromisoformat(waiting["since"]) < datetime.fromisoformat(order["created_at"])
            assert (order["status"], len(order["timeline"])) == ("INVOICE_CREATED", 2)
    [said] = [record.message for record in caplog.records if "have waited" in record.message]
    assert said == "billing payments: 3 rows have waited for over 60 s: 3 outage"

    stuck = {str(order.id): order for order in await shop.stuck()}
    assert stuck.keys() == set(orders)
    for found in stuck.values():
        [waits] = found.waits_for
        assert (waits.kind, waits.service) == ("payment", "billing"), found
        assert error in (waits.error or "")
        assert waits.next_try
    assert (await audit(Target(shop.url, None), ledger=NoLedger(), patience=0.5)).breaches == ()

    await shop.a_minute_passes()  # another minute: nothing new is announced
    shop.stripe.api.api_key = None
    shop.stripe.behave()
    await shop.claims_run_out()
    for order_id in orders:
        ended = await shop.says(order_id, lambda order: order["status"] == "SHIPPED")
        assert ended["waiting"] is None
    assert sorted(str(delay.subject) for delay in await shop.delays()) == sorted(orders)
    assert await shop.stuck() == []


@asynccontextmanager
async def without(shop: Shop, table: str) -> AsyncIterator[None]:
    """Statements on the table fail until the block ends."""
    schema, name = table.split(".")
    await shop.rows(f"ALTER TABLE {table} RENAME TO {name}_away")
    yield
    await shop.rows(f"ALTER TABLE {schema}.{name}_away RENAME TO {name}")
    await shop.claims_run_out()


DEFECTS = {
    # what is broken: the order's stage, where it stands, and the work that fails
    "invoice.invoice_counters": ("invoice", "ORDER_CREATED", "invoice.parked WHERE attempts > 0"),
    "carrier.bookings": ("shipment", "PAYMENT_CONFIRMED", "shipment.shipments WHERE defects > 0"),
}


@pytest.mark.parametrize("broken", DEFECTS)
async def test_a_failure_of_our_own_is_shown_and_once_repaired_the_order_goes_on(
    shop: Shop, broken: str
) -> None:
    stage, status, failing = DEFECTS[broken]
    async with without(shop, broken):
        order_id = await shop.place()
        await shop.says(order_id, lambda order: order["status"] == status)
        await eventually(lambda: shop.rows(f"SELECT FROM {failing}"), bool)
        await shop.a_minute_passes()
        waiting = (await shop.says(order_id, lambda order: order["waiting"] is not None))["waiting"]
        assert (waiting["stage"], waiting["reason"]["code"]) == (stage, "failed")
        assert "relation" not in waiting["reason"]["message"]
        assert [str(order.id) for order in await shop.stuck()] == [order_id]
    assert (await shop.says(order_id, lambda order: order["status"] == "SHIPPED"))["waiting"] is None


async def test_abandoned_work_waits_for_a_person_and_goes_on_when_it_is_replayed(shop: Shop) -> None:
    async with without(shop, "carrier.bookings"):
        order_id = await shop.place()

        async def given_up() -> list[asyncpg.Record]:
            await shop.claims_run_out()
            return await shop.rows("SELECT id FROM shipment.shipments WHERE state = 'dead'")

        await eventually(given_up, bool)
        await shop.rows("UPDATE shipment.shipments SET waits_since = now() - interval '70 s'")
        await shop.sweep_now()
        waiting = (await shop.says(order_id, lambda order: order["waiting"] is not None))["waiting"]
        assert (waiting["stage"], waiting["reason"]["code"]) == ("shipment", "set_aside")
    async with connect_as_owner(shop.url, "test") as owned:
        [dead] = await repository.dead(owned, "shipment")
        await repository.replay(owned, [dead], actor="test")
    await shop.claims_run_out()
    assert (await shop.says(order_id, lambda order: order["status"] == "SHIPPED"))["waiting"] is None


async def test_a_delay_of_an_order_that_is_not_here_changes_nothing(shop: Shop) -> None:
    order_id = await shop.place()
    await shop.says(order_id, lambda order: order["status"] == "SHIPPED")
    [snapshot] = await shop.rows('SELECT snapshot FROM "order".orders')
    ours = msgspec.json.decode(snapshot["snapshot"], type=Order)
    async with shop.running["billing"].transactions() as tx:
        tx.emit(a_delay(an_order(), PAYMENT), a_delay(ours, PAYMENT))
    rows = await eventually(lambda: shop.rows('SELECT order_id FROM "order".delays'), bool)
    assert [str(row["order_id"]) for row in rows] == [order_id]
    assert await shop.rows('SELECT FROM "order".parked') == []
    assert (await audit(Target(shop.url, None), ledger=NoLedger(), patience=0.5)).breaches == ()
