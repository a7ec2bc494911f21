"""Database or broker goes away and comes back: no event is lost, handled twice or given up."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from events import envelope
from events.contracts import AnyEvent, OrderCreated
from events.errors import DatabaseUnavailable
from events.splitting import MAX_FAILURES
from events.transaction import Transaction
from tests.conformance.system import BINDINGS, System, record
from tests.factories import order_created
from tests.waiting import eventually


@asynccontextmanager
async def emitting(system: System, count: int) -> AsyncIterator[list[AnyEvent]]:
    """Announces events one after the other while the block runs, the last of them before it ends."""
    events: list[AnyEvent] = [order_created() for _ in range(count)]

    async def emit() -> None:
        for event in events:
            while True:
                try:
                    await system.emit(event)
                except DatabaseUnavailable:
                    continue
                break

    task = asyncio.create_task(emit())
    yield events
    await task


async def some_are_handled(system: System, more_than: int) -> None:
    await eventually(lambda: system.handled("invoice"), lambda handled: handled.total() > more_than)


async def test_dropped_connections_are_made_again(system: System) -> None:
    await system.start("order", "invoice", "email")
    async with emitting(system, 120) as events:
        for more_than in (0, 30, 60):
            await some_are_handled(system, more_than)
            await system.transport.drop_connections(system)
    await system.handle_all(events, "invoice", "email")


async def test_the_broker_restarts_while_messages_are_published(system: System) -> None:
    await system.start("order", "invoice", "email")
    async with emitting(system, 100) as events:
        await some_are_handled(system, 10)
        await system.transport.restart(system)
    await system.let_claims_run_out()  # of the outbox rows whose confirm was lost
    await system.handle_all(events, "invoice", "email")


async def test_a_consumer_that_was_ended_consumes_again(system: System) -> None:
    await system.start("order", "invoice", "email")
    before = [order_created() for _ in range(5)]
    await system.emit(*before)
    await system.handle_all(before, "invoice", "email")
    await system.transport.end_consumer(system, "invoice")

    async def consumes() -> bool:
        await system.emit(order_created())
        return (await system.handled("invoice")).total() > len(before)

    await eventually(consumes, bool)
    await system.stop("order", "invoice", "email")


async def test_an_event_is_handled_again_when_its_commit_fails_and_nothing_is_counted(
    system: System,
) -> None:
    tries = 0

    async def cut_off(events: Sequence[OrderCreated], tx: Transaction) -> None:
        nonlocal tries
        tries += 1
        await record(events, tx)
        if tries < MAX_FAILURES:
            await tx.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    await system.start("invoice", handlers={OrderCreated: cut_off})
    await system.start("order", "email")
    event = order_created()
    await system.emit(event)
    await system.handle_all([event], "invoice", "email")
    assert tries == MAX_FAILURES
    for table in ("parked", "attempts"):
        assert not await system.query("invoice", f"SELECT * FROM {table}")


async def test_a_database_that_is_away_is_waited_for_and_nothing_is_counted(system: System) -> None:
    async with system.database_behind_proxy("invoice") as proxy:
        await system.start("order", "invoice", "email")
        before, after = order_created(), order_created()
        await system.emit(before)
        await system.handle_all([before], "invoice", "email")
        await proxy.refuse()
        await system.emit(after)
        await system.until_handled("email", Counter([before.id, after.id]))
        await proxy.accept()
        await system.handle_all([before, after], "invoice", "email")
        for table in ("parked", "attempts"):
            assert not await system.query("invoice", f"SELECT * FROM {table}")
        await system.stop("invoice")


REFUSE_COMMITS = (
    "CREATE SEQUENCE refused",
    f"""
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('refused') < {MAX_FAILURES} THEN RAISE EXCEPTION 'not now' USING ERRCODE = '40001'; END IF;
        RETURN NULL;
    END $$""",
    """
    CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON handled DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse()""",
)


async def test_commits_that_fail_are_not_counted_against_a_redelivered_event(system: System) -> None:
    """An attempt counts only if its process died with it, and this process goes on."""
    for statement in REFUSE_COMMITS:
        await system.query("invoice", statement)
    event = order_created()
    [message] = envelope.messages([event])
    async with system.bus.subscribe("invoice", BINDINGS["invoice"]) as subscription:
        publishing = asyncio.create_task(system.publish(message))
        assert len(await subscription.take(1)) == 1
    await system.start("invoice", "email")
    await publishing
    await system.handle_all([event], "invoice", "email")
    [refused] = await system.query("invoice", "SELECT last_value FROM refused")
    assert refused["last_value"] == MAX_FAILURES
    for table in ("parked", "attempts"):
        assert not await system.query("invoice", f"SELECT * FROM {table}")
