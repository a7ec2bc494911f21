"""`orderflow reconcile`: what a service never got is sent to it alone, and nothing that still waits."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiormq
import asyncpg
import pytest

from chassis import database
from events.bus import Bus
from events.contracts import type_of
from events.participant import Participant
from events.rabbitmq import Names, RabbitMQBus, declare
from events.transactions import Transactions
from ops.migrate import AUDITOR, ROLES, migrate, url_for
from ops.reconcile.reconciler import Reconciler, Resent
from ops.services import SERVICES, load
from tests.conftest import rabbitmq_of
from tests.factories import order_created
from tests.faults.proxy import proxy_to
from tests.servers import Broker
from tests.waiting import eventually, patient_bus

BINDINGS = {service: [type_of(event) for event in load(service).handlers] for service in SERVICES}


@dataclass
class Schemas:
    """Every service's schema."""

    owner_url: str
    stack: AsyncExitStack

    async def rows(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.owner_url.replace("+asyncpg", ""))
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    async def transactions(self, service: str) -> Transactions:
        url = url_for(self.owner_url, service, service)
        connection = database.connect(url, pool=4, application=f"test {service}")
        return Transactions(await self.stack.enter_async_context(connection))

    async def reconciler_on(self, bus: Bus, **changes: Any) -> Reconciler:
        return Reconciler(await self.transactions(AUDITOR), bus, **{"grace": 0} | changes)


@dataclass
class House(Schemas):
    """A broker with every service's queue, beside their schemas; order and invoice run when started."""

    broker: Broker
    prefix: str
    bus: RabbitMQBus

    async def reconciler(self, **changes: Any) -> Reconciler:
        return await self.reconciler_on(self.bus, **changes)

    @asynccontextmanager
    async def running(self, service: str) -> AsyncIterator[Participant]:
        participant = Participant(
            service, load(service).handlers, await self.transactions(service), self.bus, sweep_seconds=0.1
        )
        task = asyncio.create_task(participant.run())
        try:
            yield participant
        finally:
            participant.stop()
            await task

    async def announce(self, count: int) -> set[uuid.UUID]:
        """Orders are accepted and announced: a message each, published to whoever is bound."""
        events = [order_created() for _ in range(count)]
        async with self.running("order"):
            transactions = await self.transactions("order")
            for event in events:
                async with transactions() as tx:
                    tx.emit(event)
            pending = """SELECT id FROM "order".outbox WHERE state = 'pending'"""
            await eventually(lambda: self.rows(pending), lambda rows: not rows)
        return {event.id for event in events}

    async def inbox(self, service: str) -> set[uuid.UUID]:
        return {row["event_id"] for row in await self.rows(f"SELECT event_id FROM {service}.inbox")}

    async def in_queue(self, service: str, event_type: str) -> int:
        """Takes everything out of a service's queue and says how many messages of the type there were."""
        found = 0
        async with self.channel() as channel:
            while (got := await channel.basic_get(Names(self.prefix).queue(service), no_ack=True)).body:
                found += (got.header.properties.headers or {})["type"] == event_type
        return found

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[aiormq.abc.AbstractChannel]:
        async with aiormq.connect(self.broker.url) as connection:
            yield await connection.channel()


@pytest.fixture
async def schemas(fresh_database: str) -> AsyncIterator[Schemas]:
    await migrate(fresh_database, {role: role for role in ROLES})
    async with AsyncExitStack() as stack:
        yield Schemas(fresh_database, stack)


@pytest.fixture(params=["rabbitmq-4", "rabbitmq-local"])
async def house(request: pytest.FixtureRequest, schemas: Schemas) -> AsyncIterator[House]:
    broker, prefix = rabbitmq_of(request), f"test-{uuid.uuid4().hex[:12]}."
    await declare(broker.url, BINDINGS, prefix=prefix)
    try:
        async with RabbitMQBus(broker.url, prefix=prefix, check_seconds=0.3) as bus:
            yield House(schemas.owner_url, schemas.stack, broker, prefix, bus)
    finally:
        await broker.remove(prefix, *BINDINGS)


async def purge(house: House) -> set[uuid.UUID]:
    announced = await house.announce(7)
    async with house.channel() as channel:
        await channel.queue_purge(Names(house.prefix).queue("invoice"))
    return announced


async def unbind(house: House) -> set[uuid.UUID]:
    names = Names(house.prefix)
    async with house.channel() as channel:
        queue = names.queue("invoice")
        await channel.queue_unbind(queue, names.exchange("ORDER_CREATED"), routing_key=queue)
    return await house.announce(7)


async def delete(house: House) -> set[uuid.UUID]:
    announced = await house.announce(4)
    async with house.channel() as channel:
        await channel.queue_delete(Names(house.prefix).queue("invoice"))
    return announced | await house.announce(3)


@pytest.mark.parametrize("lose", [purge, unbind, delete])
async def test_a_purged_unbound_or_lost_queue_heals_and_other_services_get_nothing(
    house: House, lose: Callable[[House], Awaitable[set[uuid.UUID]]]
) -> None:
    announced = await lose(house)
    reconciler = await house.reconciler(chunk=3)
    resent: list[Resent] = []

    async def missing() -> set[uuid.UUID]:
        resent.extend(each for each in await reconciler.round() if each.service == "invoice")
        return announced - await house.inbox("invoice")

    async with house.running("invoice"):
        await eventually(missing, lambda events: not events)
    assert {each.type for each in resent} == {"ORDER_CREATED"}
    assert sum(each.count for each in resent) == len(announced)
    assert await house.in_queue("email", "ORDER_CREATED") == len(announced)  # what it had, and nothing more


async def test_a_service_with_messages_in_its_queue_is_skipped(house: House) -> None:
    announced = await house.announce(5)
    reconciler = await house.reconciler()
    for _ in range(3):
        assert not await reconciler.round()
    resent, skipped = await reconciler.run_once()
    assert not resent
    assert skipped == {"invoice": 5, "email": 5}
    assert await house.bus.backlog("invoice") == len(announced)


async def test_a_recent_message_is_not_sent_again(house: House) -> None:
    await purge(house)
    assert not await (await house.reconciler(grace=3600)).round()


async def test_a_message_that_does_not_arrive_is_sent_again_only_after_a_pause(house: House) -> None:
    announced = await purge(house)
    reconciler = await house.reconciler()
    assert await reconciler.round() == [Resent("invoice", "ORDER_CREATED", len(announced))]
    async with house.channel() as channel:
        await channel.queue_purge(Names(house.prefix).queue("invoice"))
    for _ in range(3):
        assert not await reconciler.round()
    assert await house.bus.backlog("invoice") == 0


async def test_only_the_message_with_the_missing_event_is_sent_and_a_parked_event_is_not_missing(
    house: House,
) -> None:
    poison = order_created()
    announced = await purge(house)
    missing = sorted(announced)[3]
    arrived = [*(announced - {missing}), poison.id]
    await house.rows("INSERT INTO invoice.inbox (event_id) SELECT unnest($1::uuid[])", arrived)
    reconciler = await house.reconciler()
    assert await reconciler.round() == [Resent("invoice", "ORDER_CREATED", 1)]
    async with house.channel() as channel:
        got = await channel.basic_get(Names(house.prefix).queue("invoice"), no_ack=True)
    assert str(missing).encode() in got.body
    assert await house.bus.backlog("invoice") == 0


async def test_it_continues_after_outages_and_after_being_killed(house: House) -> None:
    announced = await purge(house)
    async with proxy_to(house.broker.url) as proxy:
        await proxy.refuse()
        url = proxy.through(house.broker.url)
        async with RabbitMQBus(url, prefix=house.prefix, check_seconds=0.3) as bus:
            reconciler = await house.reconciler_on(bus, round_seconds=0.05)
            running = asyncio.create_task(reconciler.run())
            await asyncio.wait([running], timeout=0.5)
            assert not running.done()
            await proxy.accept()
            await eventually(lambda: house.bus.backlog("invoice"), bool)
            running.cancel()  # perhaps in the middle
            with suppress(asyncio.CancelledError):
                await running
    async with house.running("invoice"):
        again = await house.reconciler()

        async def missing() -> set[uuid.UUID]:
            await again.round()
            return announced - await house.inbox("invoice")

        await eventually(missing, lambda events: not events)
        outbox = "SELECT cardinality(event_ids) FROM invoice.outbox"
        issued = await eventually(lambda: house.rows(outbox), lambda rows: sum(r[0] for r in rows) >= 7)
    assert sum(row[0] for row in issued) == 7  # once each, however often they came


FIFTY_THOUSAND = """
    WITH made AS (
        SELECT n, lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - n * 30000), 12, '0') AS ms
        FROM generate_series(1, 50000) AS n),
    ids AS (SELECT (ms || '7000' || '8000' || lpad(to_hex(n), 12, '0'))::uuid AS id FROM made),
    invoice AS (INSERT INTO invoice.inbox (event_id) SELECT id FROM ids),
    email AS (INSERT INTO email.inbox (event_id) SELECT id FROM ids)
    INSERT INTO "order".outbox (id, type, body, event_ids, order_ids, state, published_at, claimed_until)
    SELECT id, 'ORDER_CREATED', '[]', ARRAY[id], ARRAY[id], 'published', now(), now() FROM ids"""
ROWS_READ = """
    SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables)
        + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)"""


@pytest.mark.parametrize("analyzed", [False, True])
async def test_a_round_over_fifty_thousand_messages_reads_a_chunk_of_them(
    schemas: Schemas, analyzed: bool
) -> None:
    await schemas.rows(FIFTY_THOUSAND)
    if analyzed:
        await schemas.rows("ANALYZE")
    chunk, rounds = 200, 5
    reconciler = await schemas.reconciler_on(patient_bus(BINDINGS), chunk=chunk)
    [[before]] = await schemas.rows(ROWS_READ)
    for _ in range(rounds):
        assert not await reconciler.round()
    await schemas.stack.aclose()  # what a connection has read is told at its end
    [[after]] = await schemas.rows(ROWS_READ)
    # Two walks; each looks at its chunk itself, and for invoice and email at the chunk and their inbox rows.
    assert chunk * rounds <= after - before <= 2 * (1 + 2 * 2) * chunk * rounds


async def test_an_old_undelivered_message_among_fifty_thousand_is_found(schemas: Schemas) -> None:
    await schemas.rows(FIFTY_THOUSAND)
    await schemas.rows("""
        DELETE FROM invoice.inbox
        WHERE event_id = (SELECT event_id FROM invoice.inbox ORDER BY event_id LIMIT 1 OFFSET 20000)""")
    bus = patient_bus(BINDINGS)
    reconciler = await schemas.reconciler_on(bus)
    rounds, resent = 0, list[Resent]()
    async with bus.subscribe("invoice", BINDINGS["invoice"]) as subscription:
        taken = asyncio.create_task(subscription.take(1))
        while not taken.done():
            rounds += 1
            round_ = asyncio.create_task(reconciler.round())
            await asyncio.wait([taken, round_], return_when=asyncio.FIRST_COMPLETED)
            if taken.done():
                await subscription.acknowledge(taken.result())
            resent = await round_
    assert resent == [Resent("invoice", "ORDER_CREATED", 1)]
    assert rounds == 11  # of 2000 messages each
