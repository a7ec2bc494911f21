"""Concurrent callers share the next commit and nothing else."""

import asyncio
from collections.abc import Sequence

import pytest

from events.group_commit import GroupCommit


class Commits:
    """Commits that end when the test allows it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.error: Exception | None = None
        self.begun = asyncio.Event()
        self._allowed = asyncio.Semaphore(0)

    async def __call__(self, items: Sequence[int]) -> Sequence[str]:
        self.batches.append(list(items))
        self.begun.set()
        await self._allowed.acquire()
        if self.error:
            raise self.error
        return [f"answer {item}" for item in items]

    def allow(self, count: int = 1) -> None:
        for _ in range(count):
            self._allowed.release()


async def test_callers_that_arrive_during_a_commit_share_the_next_one() -> None:
    commits = Commits()
    group = GroupCommit(commits, limit=3)
    first = asyncio.create_task(group.submit(0))
    await commits.begun.wait()
    others = [asyncio.create_task(group.submit(n)) for n in range(1, 6)]
    commits.allow(3)
    assert await asyncio.gather(first, *others) == [f"answer {n}" for n in range(6)]
    assert commits.batches == [[0], [1, 2, 3], [4, 5]]


async def test_a_cancelled_caller_cancels_only_its_own_wait() -> None:
    commits = Commits()
    group = GroupCommit(commits)
    callers = [asyncio.create_task(group.submit(n)) for n in range(3)]
    await commits.begun.wait()
    callers[1].cancel()
    commits.allow()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert answers[0] == "answer 0"
    assert isinstance(answers[1], asyncio.CancelledError)
    assert answers[2] == "answer 2"
    assert [item for batch in commits.batches for item in batch] == [0, 1, 2]


async def test_a_caller_that_is_cancelled_before_its_commit_begins_removes_its_item() -> None:
    commits = Commits()
    group = GroupCommit(commits)
    callers = [asyncio.create_task(group.submit(0))]
    await commits.begun.wait()
    callers += [asyncio.create_task(group.submit(n)) for n in range(1, 4)]
    await asyncio.sleep(0)  # the callers join the next commit
    callers[2].cancel()
    commits.allow(2)
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert [answers[0], answers[1], answers[3]] == ["answer 0", "answer 1", "answer 3"]
    assert commits.batches == [[0], [1, 3]]


async def test_each_caller_gets_the_error_of_its_commit_and_the_next_commit_is_another() -> None:
    commits = Commits()
    group = GroupCommit(commits)
    commits.error = ValueError("full")
    callers = [asyncio.create_task(group.submit(n)) for n in range(2)]
    commits.allow()
    for caller in callers:
        with pytest.raises(ValueError, match="full"):
            await caller
    commits.error = None
    commits.allow()
    assert await group.submit(7) == "answer 7"


async def test_draining_waits_for_every_answer() -> None:
    commits = Commits()
    group = GroupCommit(commits, limit=1)
    callers = [asyncio.create_task(group.submit(n)) for n in range(3)]
    await commits.begun.wait()
    draining = asyncio.create_task(group.drain())
    commits.allow(3)
    await draining
    assert all(caller.done() for caller in callers)
    assert await asyncio.gather(*callers) == ["answer 0", "answer 1", "answer 2"]
    await group.drain()
