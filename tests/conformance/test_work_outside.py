"""Work that handlers leave to be done calls a third party, which fails in its own ways."""

import asyncio
import operator
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import Column, MetaData, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import create_async_engine

from chassis import database
from events import statements
from events.contracts import OrderCreated
from events.errors import Unavailable, UnknownOutcome
from events.leases import Leases, claimed, lease_columns, lease_indexes
from events.retry import RetryPolicy
from events.runner import Runner
from events.transaction import Transaction
from events.transactions import Transactions
from events.worker import Handlers
from tests.conformance.system import SWEEP_SECONDS, System, record
from tests.factories import order_created
from tests.waiting import eventually

METADATA = MetaData()
ERRANDS = Table(
    "errands",
    METADATA,
    Column("id", postgresql.UUID, primary_key=True),
    Column("done_at", TIMESTAMP(timezone=True)),
    *lease_columns(),
    *lease_indexes("errands", "pending"),
)
INSERT = statements.insert(
    ERRANDS,
    ("id",),
    computed={"state": "'pending'", "claimed_until": claimed()},
    then="ON CONFLICT DO NOTHING RETURNING id",
)
SETTLE = """
    UPDATE errands SET state = 'done', done_at = now() WHERE id = ANY($1::uuid[]) AND state = 'pending'"""


@dataclass(frozen=True)
class Errand:
    """One call of the third party for an order."""

    id: UUID


def _read(row: asyncpg.Record) -> Errand:
    return Errand(row["id"])


LEASES = Leases(ERRANDS, _read, waiting="pending", columns=("id",))


async def leave_errands(events: Sequence[OrderCreated], tx: Transaction) -> None:
    await record(events, tx)
    rows = await tx.fetch(INSERT, [event.id for event in events])
    tx.intend(*(Errand(row["id"]) for row in rows))


HANDLERS: Handlers = {OrderCreated: leave_errands}


async def settle(tx: Transaction, done: Sequence[tuple[Errand, None]]) -> None:
    await tx.execute(SETTLE, [errand.id for errand, _ in done])


whatever_the_transport = pytest.mark.parametrize("transport", ["memory"], indirect=True)
"""After the message was acknowledged the transport makes no difference, so one stands for all."""


class ThirdParty:
    """A third party. It records every call, and answers as the test says."""

    def __init__(self) -> None:
        self.calls: list[UUID] = []
        self.error: Exception | None = None
        self.silent = False

    async def do(self, errand: Errand) -> None:
        self.calls.append(errand.id)
        if self.silent:
            await asyncio.Event().wait()
        if self.error:
            raise self.error


@pytest.fixture
async def third_party() -> ThirdParty:
    return ThirdParty()


@pytest.fixture
async def runner(system: System, third_party: ThirdParty) -> AsyncIterator[Runner[Errand, None]]:
    """The invoice service runs errands. Order and email run as usual."""
    url = system.urls["invoice"]
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    await engine.dispose()
    async with database.connect(url, pool=4, application="errands") as pool:
        runner = Runner(
            "errands",
            LEASES,
            Transactions(pool),
            third_party.do,
            settle,
            sweep_seconds=SWEEP_SECONDS,
            policy=RetryPolicy(deadline=1.0, first=1, longest=30),
        )
        await system.start("invoice", handlers=HANDLERS, runners={Errand: runner})
        await system.start("order", "email")
        yield runner
        await system.stop("invoice")


async def attempts_at(system: System) -> int:
    [row] = await system.query("invoice", "SELECT attempts FROM errands")
    return int(row["attempts"])


async def errands(system: System) -> list[asyncpg.Record]:
    return await system.query("invoice", "SELECT * FROM errands ORDER BY id")


def _in_outage(runner: Runner[Errand, None]) -> Callable[[], Awaitable[bool]]:
    async def probe() -> bool:
        return runner.in_outage

    return probe


def _calls(third_party: ThirdParty) -> Callable[[], Awaitable[int]]:
    async def probe() -> int:
        return len(third_party.calls)

    return probe


async def all_done(system: System) -> list[asyncpg.Record]:
    return await eventually(lambda: errands(system), lambda rows: all(row["state"] == "done" for row in rows))


async def test_work_that_a_handler_leaves_is_done_once(
    system: System, third_party: ThirdParty, runner: Runner[Errand, None]
) -> None:
    events = [order_created() for _ in range(50)]
    await system.emit(*events)
    await system.handle_all(events, "invoice")
    await all_done(system)
    assert sorted(third_party.calls) == sorted(event.id for event in events)


async def test_an_outage_counts_against_no_row_abandons_none_and_ends_without_help(
    system: System, third_party: ThirdParty, runner: Runner[Errand, None]
) -> None:
    """Events are handled meanwhile, and their errands wait in the table."""
    third_party.error = Unavailable("closed for lunch", retry_after=0.05)
    first, later = order_created(), [order_created() for _ in range(3)]
    await system.emit(first)
    await system.until_handled("invoice", Counter([first.id]))
    await eventually(_in_outage(runner), bool)
    for event in later:
        await system.emit(event)
    tries = len(third_party.calls)
    await eventually(_calls(third_party), lambda calls: calls >= tries + 2)
    await system.until_handled("invoice", Counter([first.id, *(event.id for event in later)]))
    await eventually(partial(system.bus.backlog, "invoice"), lambda waiting: waiting == 0)
    assert all((row["state"], row["attempts"]) == ("pending", 0) for row in await errands(system))

    third_party.error = None
    await system.handle_all([first, *later], "invoice", "email")
    assert len(await all_done(system)) == 4
    assert await system.transport.dead(system, "invoice") == []
    assert await system.parked("invoice", "dead") == []
    assert await system.parked("invoice", "retry") == []


@whatever_the_transport
async def test_a_row_with_an_unknown_outcome_is_tried_again_without_end(
    system: System, third_party: ThirdParty, runner: Runner[Errand, None]
) -> None:
    third_party.error = UnknownOutcome("the line went dead")
    event = order_created()
    await system.emit(event)
    [row] = await eventually(lambda: errands(system), lambda rows: [row["attempts"] for row in rows] == [1])
    assert (row["state"], row["last_error"]) == ("pending", "the line went dead")
    for attempts in range(2, 12):  # more often than a defect may fail
        await system.query("invoice", "UPDATE errands SET claimed_until = now()")
        await eventually(partial(attempts_at, system), partial(operator.eq, attempts))
    third_party.error = None
    await system.query("invoice", "UPDATE errands SET claimed_until = now()")
    await all_done(system)
    assert set(third_party.calls) == {event.id}


@whatever_the_transport
async def test_no_answer_in_time_is_an_unknown_outcome(
    system: System, third_party: ThirdParty, runner: Runner[Errand, None]
) -> None:
    third_party.silent = True
    event = order_created()
    await system.emit(event)
    await eventually(lambda: errands(system), lambda rows: [row["attempts"] for row in rows] == [1])
    third_party.silent = False
    await all_done(system)
    assert third_party.calls == [event.id, event.id]


@whatever_the_transport
async def test_a_defect_is_set_aside_as_dead_after_some_failures(
    system: System, third_party: ThirdParty, runner: Runner[Errand, None]
) -> None:
    third_party.error = ValueError("nonsense")
    event = order_created()
    await system.emit(event)

    async def states() -> list[tuple[str, str]]:
        await system.query("invoice", "UPDATE errands SET claimed_until = now() WHERE last_error IS NOT NULL")
        return [(row["state"], row["last_error"]) for row in await errands(system)]

    await eventually(states, lambda found: found == [("dead", "ValueError('nonsense')")])
    assert third_party.calls == [event.id] * 8
