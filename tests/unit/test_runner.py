"""How a runner treats rows, outages and its own bounds; on a virtual clock, with the table in memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar, cast
from uuid import UUID, uuid4

from events.errors import DatabaseUnavailable, NotAsked, Postponed, Unavailable, UnknownOutcome
from events.leases import LEASE_SECONDS, Deferral, Lease, Leases
from events.performing import GRACE_SECONDS
from events.retry import FRESH, RetryPolicy, Tries
from events.runner import Runner
from events.transactions import Transactions
from tests import virtual_clock

T = TypeVar("T")

POLICY = RetryPolicy(deadline=10, first=1, longest=30)


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass(frozen=True)
class Row:
    id: UUID = field(default_factory=uuid4)
    subject: str = ""


@dataclass
class Entry:
    """A row as the table has it."""

    row: Row
    claimed_until: float
    since: float
    state: str = "pending"
    tries: Tries = FRESH


@dataclass
class Table:
    """Claims as `events.leases` promises them, by the loop's clock."""

    entries: dict[UUID, Entry] = field(default_factory=dict)
    away: bool = False
    """The database does not answer."""
    never_commits: Sequence[Row] = ()
    """Rows with which a transaction fails each time, although the database answers."""
    most: int = 0

    def add(self, *rows: Row, claimed_for: float = 0.0) -> None:
        for row in rows:
            self.entries[row.id] = Entry(row, now() + claimed_for, now())
        self.most = max(self.most, len(self.waiting))

    @property
    def waiting(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.state == "pending"]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        if self.away:
            raise DatabaseUnavailable

        @dataclass
        class Tx:
            started: float = field(default_factory=now)

        tx = Tx()
        await asyncio.sleep(0.001)
        yield tx

    async def claim(self, _: object, limit: int) -> list[Lease[Row]]:
        due = [entry for entry in self.waiting if entry.claimed_until <= now()]
        claimed = sorted(due, key=lambda entry: entry.claimed_until)[:limit]
        for entry in claimed:
            entry.claimed_until = now() + LEASE_SECONDS
        return [
            Lease(entry.row, replace(entry.tries, waited=timedelta(seconds=now() - entry.since)))
            for entry in claimed
        ]

    async def renew(self, _: object, ids: Sequence[UUID]) -> set[UUID]:
        mine = [self.entries[each] for each in ids if self.entries[each].state == "pending"]
        for entry in mine:
            entry.claimed_until = now() + LEASE_SECONDS
        return {entry.row.id for entry in mine}

    async def release(self, _: object, ids: Sequence[UUID]) -> None:
        for each in ids:
            self.entries[each].claimed_until = now()

    async def defer(self, _: object, deferrals: Sequence[Deferral]) -> None:
        for each in deferrals:
            entry = self.entries[each.id]
            entry.claimed_until = now() + each.delay
            entry.state = each.state or entry.state
            tries = entry.tries
            entry.tries = Tries(
                tries.attempts + (each.failure != "outage"),
                tries.defects + (each.failure == "defect"),
                tries.unknowns + (each.failure == "unknown"),
            )

    async def settle(self, _: object, done: Sequence[tuple[Row, str]]) -> None:
        if any(row in self.never_commits for row, _ in done):
            raise DatabaseUnavailable("a lock that never becomes free")
        for row, outcome in done:
            self.entries[row.id].state = outcome


@dataclass
class Database:
    """Opens transactions on the table."""

    table: Table

    def __call__(self) -> AbstractAsyncContextManager[Any]:
        return self.table.transaction()

    async def run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        async with self() as tx:
            return await work(tx)

    async def ping(self) -> bool:
        return not self.table.away


class Other:
    """The other side: what it says to each row, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Row] = []
        self.answer: Callable[[Row], Exception | None] = lambda _: None
        self.takes: Callable[[Row], float] = lambda _: 0.0
        self.under_way = 0
        self.most_under_way = 0

    async def perform(self, row: Row) -> str:
        self.asked.append(row)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.takes(row))
            if error := self.answer(row):
                raise error
        finally:
            self.under_way -= 1
        return "done"


def in_outage(runner: Runner[Row, str]) -> bool:
    return runner.in_outage


@asynccontextmanager
async def running(table: Table, other: Other, **given: Any) -> AsyncIterator[Runner[Row, str]]:
    """A runner on the table that asks the other side, until the block ends."""
    runner: Runner[Row, str] = Runner(
        "rows",
        cast(Leases[Row], table),
        cast(Transactions, Database(table)),
        other.perform,
        table.settle,
        subject=lambda row: row.subject or str(row.id),
        **{"policy": POLICY, **given},
    )
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        runner.stop()
        await task


Scene = Callable[[Table, Other], AbstractAsyncContextManager[Runner[Row, str]]]


def play(scene: Callable[[Table, Other], Awaitable[None]]) -> None:
    async def scene_with_a_table() -> None:
        await scene(Table(), Other())

    virtual_clock.run(scene_with_a_table())


def test_a_slow_other_side_holds_work_back_and_starves_nobody() -> None:
    """16 places and 4 s an answer: four rows a second, however many could be made."""

    async def scene(table: Table, other: Other) -> None:
        other.takes = lambda _: 4.0
        left_over = Row()
        table.add(left_over)
        async with running(table, other, concurrency=16, memory=200) as runner:
            while now() < 300:
                await runner.wait_for_room()
                rows = [Row() for _ in range(min(20, runner.room))]
                table.add(*rows, claimed_for=LEASE_SECONDS)
                runner.offer(rows, now())
                await asyncio.sleep(0.02)
            waited = [now() - entry.since for entry in table.waiting]
        assert table.most <= 200
        assert max(waited) < 200 / 4 + 10
        assert len(other.asked) == len({row.id for row in other.asked}), "no claim ran out meanwhile"
        assert table.entries[left_over.id].state == "done"

    play(scene)


def test_what_fell_due_again_goes_before_what_is_new_however_much_is_made() -> None:
    async def scene(table: Table, other: Other) -> None:
        other.takes = lambda _: 1.0
        unlucky = Row()
        other.answer = lambda row: (
            UnknownOutcome() if row is unlucky and other.asked.count(row) == 1 else None
        )
        async with running(table, other, concurrency=4, memory=100) as runner:
            rows = [unlucky]
            while now() < 90:
                await runner.wait_for_room()
                table.add(*rows, claimed_for=LEASE_SECONDS)
                runner.offer(rows, now())
                rows = [Row() for _ in range(runner.room)]  # at once: nobody takes the room before
        assert table.entries[unlucky.id].state == "done"

    play(scene)


def test_the_other_side_saying_that_it_is_away_pauses_all_and_counts_against_nobody() -> None:
    async def scene(table: Table, other: Other) -> None:
        other.answer = lambda _: Unavailable("away") if now() < 60 else None
        rows = [Row() for _ in range(50)]
        table.add(*rows)
        async with running(table, other, concurrency=8) as runner:
            await asyncio.sleep(30)
            assert in_outage(runner)
            assert not runner.takes_new
            assert runner.has_room, "what is made meanwhile waits in the table"
            asked_in_the_outage = len(other.asked)
            await asyncio.sleep(60)
            assert not in_outage(runner)
        assert asked_in_the_outage < 8 + 20, "one probe at a time, with pauses"
        assert {entry.state for entry in table.entries.values()} == {"done"}
        assert {entry.tries.attempts for entry in table.entries.values()} == {0}

    play(scene)


def test_one_row_that_is_postponed_for_ever_stops_nobody_else() -> None:
    async def scene(table: Table, other: Other) -> None:
        unlucky = Row()
        other.answer = lambda row: Postponed("not you", perhaps_all=True) if row is unlucky else None
        table.add(unlucky)
        async with running(table, other, concurrency=1) as runner:
            for _ in range(100):
                table.add(Row())
                await asyncio.sleep(1)
                assert not in_outage(runner)
        states = [entry.state for entry in table.entries.values()]
        assert states.count("done") >= 95
        assert table.entries[unlucky.id].tries.attempts > 3

    play(scene)


def test_five_different_subjects_without_an_answer_are_an_outage() -> None:
    async def scene(table: Table, other: Other) -> None:
        other.answer = lambda _: UnknownOutcome("no answer") if now() < 100 else None
        async with running(table, other, concurrency=1, sweep_seconds=1) as runner:
            for subject in ("a", "a", "a", "a", "a", "a", "b", "c", "d"):
                table.add(Row(subject=subject))
            await asyncio.sleep(2)
            assert len(other.asked) >= 9
            assert not in_outage(runner), "four subjects may be unlucky"
            table.add(Row(subject="e"))
            await asyncio.sleep(2)
            assert in_outage(runner)
            await asyncio.sleep(200)
            assert not in_outage(runner)
        assert {entry.state for entry in table.entries.values()} == {"done"}

    play(scene)


def test_an_answer_between_them_tells_that_the_other_side_is_there() -> None:
    async def scene(table: Table, other: Other) -> None:
        other.answer = lambda row: (
            Postponed(perhaps_all=True) if row.subject != "good" and other.asked.count(row) == 1 else None
        )
        async with running(table, other, concurrency=1, sweep_seconds=1) as runner:
            for number in range(40):
                table.add(Row(subject="good" if number % 4 == 0 else str(number)))
                await asyncio.sleep(1.5)
                assert not in_outage(runner)

    play(scene)


def test_a_refusal_of_one_row_ends_an_outage_as_any_other_answer_does() -> None:
    async def scene(table: Table, other: Other) -> None:
        other.answer = lambda row: Unavailable() if row.subject == "first" else Postponed("not now")
        table.add(Row(subject="first"))
        async with running(table, other, sweep_seconds=1) as runner:
            await asyncio.sleep(0.1)
            assert in_outage(runner)
            table.add(Row(subject="second"))
            other.answer = lambda _: Postponed("not now")
            await asyncio.sleep(15)
            assert not in_outage(runner)

    play(scene)


def test_a_row_for_which_nobody_was_asked_ends_no_outage_and_begins_none() -> None:
    async def scene(table: Table, other: Other) -> None:
        other.answer = lambda row: Unavailable() if row.subject == "first" else NotAsked("not now")
        table.add(*(Row(subject=str(number)) for number in range(8)))
        async with running(table, other, sweep_seconds=1) as runner:
            await asyncio.sleep(5)
            assert not in_outage(runner)
            table.add(Row(subject="first"))
            await asyncio.sleep(1)
            assert in_outage(runner)
            for _ in range(30):
                table.add(Row(subject="another"))
                await asyncio.sleep(1)
                assert in_outage(runner)
        tried_before = [entry for entry in table.waiting if entry.row.subject.isdigit()]
        assert [entry.tries.unknowns > 0 for entry in tried_before] == [True] * 8

    play(scene)


def test_each_probe_is_about_another_subject_and_what_waited_longest_goes_first() -> None:
    async def scene(table: Table, other: Other) -> None:
        other.answer = lambda _: Unavailable("away")
        for subject in ("a", "a", "b", "c"):
            table.add(Row(subject=subject))
            await asyncio.sleep(0.001)
        async with running(table, other, concurrency=1, sweep_seconds=1):
            await asyncio.sleep(5)
        assert [row.subject for row in other.asked[:3]] == ["a", "b", "c"]

    play(scene)


def test_an_outage_ends_when_nothing_is_left_that_could_tell() -> None:
    async def scene(table: Table, other: Other) -> None:
        other.answer = lambda _: Unavailable("away")
        row = Row()
        table.add(row)
        async with running(table, other, sweep_seconds=1) as runner:
            await asyncio.sleep(1)
            assert in_outage(runner)
            table.entries[row.id].state = "done by somebody else"
            await asyncio.sleep(LEASE_SECONDS + 30)
            assert runner.takes_new

    play(scene)


def test_a_row_is_given_up_by_its_policy() -> None:
    policy = replace(POLICY, unknowns=3, defects=2, patience=timedelta(minutes=5), expired="refused")
    errors = {"unknown": UnknownOutcome(), "defect": ValueError(), "postponed": Postponed()}

    async def scene(table: Table, other: Other) -> None:
        other.answer = lambda row: errors[row.subject]
        rows = {subject: Row(subject=subject) for subject in errors}
        table.add(*rows.values())
        async with running(table, other, policy=policy, sweep_seconds=1):
            await asyncio.sleep(1000)
        ends = {subject: table.entries[row.id] for subject, row in rows.items()}
        assert {subject: end.state for subject, end in ends.items()} == {
            "unknown": "dead",
            "defect": "dead",
            "postponed": "refused",
        }
        assert other.asked.count(rows["unknown"]) == 3
        assert other.asked.count(rows["defect"]) == 2

    play(scene)


def test_no_answer_within_the_deadline_is_an_unknown_outcome() -> None:
    async def scene(table: Table, other: Other) -> None:
        other.takes = lambda _: 3600.0 if len(other.asked) == 1 else 0.0
        row = Row()
        table.add(row)
        async with running(table, other):
            await asyncio.sleep(30)
        assert (table.entries[row.id].state, table.entries[row.id].tries.unknowns) == ("done", 1)

    play(scene)


def test_slow_rows_have_a_lane_of_their_own() -> None:
    policy = replace(POLICY, deadline=600)

    async def scene(table: Table, other: Other) -> None:
        other.takes = lambda row: 300.0 if row.subject == "slow" else 0.1
        slow = [Row(subject="slow") for _ in range(40)]
        good = [Row() for _ in range(40)]
        table.add(*(row for pair in zip(slow, good, strict=True) for row in pair))
        async with running(table, other, policy=policy, concurrency=4, slow_after_seconds=1, slow_places=64):
            await asyncio.sleep(15)
            assert {table.entries[row.id].state for row in good} == {"done"}
            assert other.most_under_way <= 4 + 64
            await asyncio.sleep(300)
        assert {entry.state for entry in table.entries.values()} == {"done"}
        assert len(other.asked) == 80, "claims are renewed while work takes longer than they hold"

    play(scene)


def test_work_that_outlasts_the_grace_is_broken_off_as_an_unknown_outcome() -> None:
    async def scene(table: Table, other: Other) -> None:
        other.takes = lambda _: 3600.0
        row = Row()
        table.add(row)
        async with running(table, other, policy=replace(POLICY, deadline=7200)):
            await asyncio.sleep(1)
            stopped_at = now()
        assert now() - stopped_at <= GRACE_SECONDS + 1
        assert table.entries[row.id].tries == Tries(attempts=1, unknowns=1)

    play(scene)


def test_a_claim_that_can_not_be_renewed_is_left_to_the_next_who_claims() -> None:
    async def scene(table: Table, other: Other) -> None:
        other.takes = lambda _: 30.0 if now() < 1 else 0.0
        async with running(table, other, policy=replace(POLICY, deadline=60), concurrency=1) as runner:
            rows = [Row(), Row()]
            table.add(*rows, claimed_for=LEASE_SECONDS)
            runner.offer(rows, now())
            await asyncio.sleep(0.5)
            table.away = True
            await asyncio.sleep(40)
            assert other.asked == rows[:1], "nobody knows whose the second is by now"
            table.away = False
            await asyncio.sleep(30)
        assert {entry.state for entry in table.entries.values()} == {"done"}

    play(scene)


def test_an_outcome_that_never_commits_holds_up_no_other() -> None:
    async def scene(table: Table, other: Other) -> None:
        rows = [Row() for _ in range(8)]
        table.never_commits = rows[3:4]
        table.add(*rows)
        async with running(table, other, policy=replace(POLICY, defects=2)):
            await asyncio.sleep(60)
        states = [table.entries[row.id].state for row in rows]
        assert states == ["done"] * 3 + ["dead"] + ["done"] * 4

    play(scene)
