"""Which events the worker handles together, which one by one, and which of them a failure counts against."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from events import envelope, parked
from events.contracts import AnyEvent, OrderCreated
from events.errors import BrokerUnavailable, Reject
from events.transaction import Transaction
from events.transactions import Transactions
from events.worker import MAX_DEATHS, Worker
from tests.factories import order_created
from tests.handovers import RecordedHandover
from tests.waiting import patient_bus

HANG_SECONDS = 30.0

Failing = Callable[[Transaction], Awaitable[None]]


class Batches:
    """A worker whose handler fails as the test says, and the content of each of its batches."""

    def __init__(self, transactions: Transactions) -> None:
        self.transactions = transactions
        self.bus = patient_bus({"invoice": ["ORDER_CREATED"]})
        self.bad: dict[UUID, Failing] = {}
        self.batches: list[set[UUID]] = []

    def worker(self) -> Worker:
        """A new process's worker."""
        return Worker("invoice", {OrderCreated: self._handle}, self.transactions, self.bus)

    async def _handle(self, events: Sequence[OrderCreated], tx: Transaction) -> None:
        self.batches.append({event.id for event in events})
        for event in events:
            if event.id in self.bad:
                await self.bad[event.id](tx)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Worker]:
        """A worker that runs until the block ends."""
        worker = self.worker()
        working = asyncio.create_task(worker.run())
        try:
            async with asyncio.timeout(HANG_SECONDS):
                yield worker
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    def publishing(self, events: Sequence[AnyEvent]) -> "asyncio.Task[None]":
        """One message with these events; done when it is acknowledged."""
        [message] = envelope.messages(events)
        return asyncio.create_task(self.bus.publish(message))

    async def rows(self, statement: str) -> list[dict[str, Any]]:
        async with self.transactions() as tx:
            return [dict(row) for row in await tx.fetch(statement)]

    async def inbox(self) -> set[UUID]:
        return {row["event_id"] for row in await self.rows("SELECT event_id FROM inbox")}

    async def attempts(self) -> dict[UUID, int]:
        rows = await self.rows("SELECT event_id, count FROM attempts")
        return {row["event_id"]: row["count"] for row in rows}


@pytest.fixture
def batches(transactions: Transactions) -> Batches:
    return Batches(transactions)


def raising(error: Exception) -> Failing:
    async def fail(_: Transaction) -> None:
        raise error

    return fail


async def deadlock(tx: Transaction) -> None:
    await tx.execute("DO $$ BEGIN RAISE 'again and again' USING ERRCODE = '40P01'; END $$")


async def swallow(tx: Transaction) -> None:
    try:
        await tx.execute("SELECT 1 / 0")
    except Exception:  # noqa: BLE001  # the mistake
        return


@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        (raising(FileNotFoundError("a rate table of ours")), "FileNotFoundError"),
        (raising(TimeoutError("the warehouse")), "TimeoutError"),
        (raising(BrokenPipeError()), "BrokenPipeError"),
        (raising(ConnectionRefusedError("smtp")), "ConnectionRefusedError"),
        (raising(BrokerUnavailable()), "NeverCommits"),
        (swallow, "Aborted"),
        (deadlock, "NeverCommits"),
    ],
    ids=[
        "FileNotFound",
        "Timeout",
        "BrokenPipe",
        "ConnectionRefused",
        "Unavailable",
        "swallowed",
        "deadlock",
    ],
)
async def test_an_event_whose_handling_fails_is_parked_and_its_neighbours_are_handled(
    batches: Batches, failing: Failing, reason: str
) -> None:
    events = [order_created() for _ in range(4)]
    batches.bad[events[0].id] = failing
    async with batches.working():
        await batches.publishing(events)
    [row] = await batches.rows("SELECT id, state, reason, attempts FROM parked")
    assert row == {"id": events[0].id, "state": "retry", "reason": reason, "attempts": 1}
    assert await batches.inbox() == {event.id for event in events}
    assert {event.id for event in events[1:]} in batches.batches or len(batches.batches) > 3


async def test_a_parked_event_that_never_commits_is_counted_like_any_other_failure(batches: Batches) -> None:
    event = order_created()
    batches.bad[event.id] = deadlock
    async with batches.working() as worker:
        await batches.publishing([event])
        for attempts in (1, parked.MAX_ATTEMPTS - 1):
            await batches.rows(f"UPDATE parked SET attempts = {attempts}")
            [row] = await batches.rows("SELECT id, body, attempts, state FROM parked")
            assert row["state"] == "retry"
            await worker.retry(parked.ParkedEvent(row["id"], row["body"], row["attempts"]))
    [row] = await batches.rows("SELECT state, reason, attempts FROM parked")
    assert row == {"state": "dead", "reason": "NeverCommits", "attempts": parked.MAX_ATTEMPTS}
    assert await batches.attempts() == {}


# Redelivered events. A process that dies leaves its transaction undone and its messages unacknowledged.


class Death(BaseException):
    """The process dies here."""


async def die(_: Transaction) -> None:
    raise Death


async def dies(batches: Batches) -> None:
    """A process takes the waiting events and dies while it handles them."""
    with pytest.raises(Death):
        async with asyncio.timeout(HANG_SECONDS):
            await batches.worker().run()


async def test_redelivered_events_are_handled_one_by_one_only_after_a_death(
    batches: Batches,
) -> None:
    events = [order_created() for _ in range(4)]
    ids = {event.id for event in events}
    killer = events[1].id
    batches.bad[killer] = die
    publishing = batches.publishing(events)

    await dies(batches)  # new
    assert (batches.batches, await batches.attempts()) == ([ids], {})

    await dies(batches)  # redelivered
    assert batches.batches == [ids, ids]
    assert await batches.attempts() == dict.fromkeys(ids, 0)

    batches.batches.clear()
    await dies(batches)  # redelivered for the second time
    assert batches.batches == [{events[0].id}, {killer}]
    assert await batches.inbox() == {events[0].id}
    assert await batches.attempts() == {killer: 1, events[2].id: 0, events[3].id: 0}

    for attempt in range(2, MAX_DEATHS + 1):
        batches.batches.clear()
        await dies(batches)
        assert batches.batches == [{killer}]
        assert (await batches.attempts())[killer] == attempt

    batches.batches.clear()
    async with batches.working():
        await publishing
    assert batches.batches == [{events[2].id}, {events[3].id}]
    assert await batches.inbox() == ids
    [dead] = await batches.rows("SELECT id, state, reason FROM parked")
    assert dead == {"id": killer, "state": "dead", "reason": "KillsProcess"}
    assert await batches.attempts() == {}


async def test_a_thousand_redelivered_events_take_two_commits(
    batches: Batches, handover: RecordedHandover
) -> None:
    batches.bus._first_id = UUID(int=2**128 - 1)  # every event is older than the process
    messages = [m for _ in range(10) for m in envelope.messages([order_created() for _ in range(100)])]
    publishing = asyncio.gather(*(batches.bus.publish(message) for message in messages))
    await asyncio.sleep(0)  # every message is on the bus
    async with batches.working():
        await publishing
    assert [len(batch) for batch in batches.batches] == [1000]
    assert len(handover.transactions) == 2
    assert len(await batches.inbox()) == 1000
    assert await batches.attempts() == {}


async def test_a_redelivered_batch_with_a_defect_is_split_and_its_rows_are_struck(
    batches: Batches,
) -> None:
    events = [order_created() for _ in range(8)]
    batches.bad[events[3].id] = raising(ValueError("bad"))
    batches.bus._first_id = UUID(int=2**128 - 1)
    async with batches.working():
        await batches.publishing(events)
    assert [row["id"] for row in await batches.rows("SELECT id FROM parked")] == [events[3].id]
    assert await batches.inbox() == {event.id for event in events}
    assert await batches.attempts() == {}


# One event id, two payloads


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "another payload" in record.getMessage()]


@pytest.mark.parametrize("when", ["in one message", "in one batch", "later", "redelivered"])
async def test_another_payload_under_an_events_id_is_logged_with_its_sender(
    batches: Batches, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    event = order_created()
    another = order_created()
    forged = replace(event, source="//forger", data=another.data, subject=another.subject)
    other = order_created()
    if when == "redelivered":
        batches.bus._first_id = UUID(int=2**128 - 1)
    if when == "in one message":
        async with batches.working():
            await batches.publishing([event, forged, other])
    elif when == "in one batch":
        publishing = [batches.publishing(each) for each in ([event], [forged], [other])]
        await asyncio.sleep(0)
        async with batches.working():
            await asyncio.gather(*publishing)
    else:
        async with batches.working():
            await batches.publishing([event])
            await batches.publishing([event])  # the same payload again is a duplicate
            assert warnings_of(caplog) == []
            await batches.publishing([forged, other])
    assert warnings_of(caplog) == [
        f"invoice: event {event.id} came again with another payload, from //forger: the first one counts"
    ]
    assert await batches.inbox() == {event.id, other.id}


async def test_an_event_without_a_digest_is_not_compared(
    batches: Batches, caplog: pytest.LogCaptureFixture
) -> None:
    """A process of an earlier version has handled it."""
    event = order_created()
    await batches.rows(f"INSERT INTO inbox (event_id) VALUES ('{event.id}')")
    async with batches.working():
        await batches.publishing([event])
    assert await batches.rows("SELECT FROM parked") == []
    assert warnings_of(caplog) == []


async def test_an_abandoned_event_that_comes_again_fails_no_neighbour(
    batches: Batches, caplog: pytest.LogCaptureFixture
) -> None:
    bad, other = order_created(), order_created()
    batches.bad[bad.id] = raising(Reject())
    async with batches.working():
        await batches.publishing([bad])
        caplog.clear()
        await batches.publishing([bad, other])
    assert batches.batches[-1] == {other.id}
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    assert await batches.inbox() == {bad.id, other.id}
