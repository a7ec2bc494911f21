"""The history that a fault run keeps of its clients and processes."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.faults.history import History
from tests.faults.replica import Ended, Replica


@pytest.mark.parametrize(
    ("second", "answers"),
    [
        ({"waiting": None}, 1),
        ({"waiting": "payment"}, 2),
        ({"id": "another"}, 2),
        ({"total": "2.00"}, 2),
    ],
    ids=["a member that is null", "a member that says something", "another order", "another total"],
)
def test_answers_are_compared_without_their_empty_members(
    tmp_path: Path, second: dict[str, object], answers: int
) -> None:
    history = History(tmp_path / "history.jsonl")
    first = {"id": "one", "total": "1.00", "currency": "EUR"}
    history.sent("key", "SHIPPED", "ana@example.com")
    for document in (first, first | second):
        history.answered("key", 201, json.dumps(document).encode())
    history.close()
    assert len(history.keys["key"].answers) == answers


async def test_a_process_is_told_apart_from_a_later_one_with_the_same_id(tmp_path: Path) -> None:
    replica = Replica("email-1", (), {}, None, tmp_path / "log")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE
    )
    replica._process = process
    replica.ends.append(Ended(process.pid, -9, 0.0))
    ended = asyncio.create_task(replica.ended(process.pid))
    await asyncio.sleep(0)
    assert not ended.done()
    process.terminate()
    replica.ends.append(Ended(process.pid, await process.wait(), 1.0))
    replica._changed.set()
    assert (await ended).at == 1.0
