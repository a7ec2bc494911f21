"""How a fault run tells answers, and ends of processes, apart."""

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
        ({"prices": "net", "items": [{"sku": "MUG-01", "id": "1"}]}, 1),
        ({"items": [{"sku": "MUG-02"}]}, 2),
    ],
    ids=[
        "a null member",
        "a member with a value",
        "another order",
        "another total",
        "members of this version alone",
        "another item",
    ],
)
def test_members_that_are_null_or_new_make_no_other_answer(
    tmp_path: Path, second: dict[str, object], answers: int
) -> None:
    history = History(tmp_path / "history.jsonl")
    first = {"id": "one", "total": "1.00", "currency": "EUR", "items": [{"sku": "MUG-01"}]}
    history.sent("key", "SHIPPED", "ana@example.com")
    for document in (first, first | second):
        history.answered("key", 201, json.dumps(document).encode())
    history.close()
    assert len(history.keys["key"].answers) == answers


async def test_the_end_of_a_process_is_not_that_of_an_earlier_one_with_the_same_id(tmp_path: Path) -> None:
    replica = Replica("email-1", (), {}, None, tmp_path / "log")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE
    )
    replica._process = process
    replica.ends.append(Ended(process.pid, -9, 0.0))
    ended = asyncio.create_task(replica.wait_for_end(process.pid))
    await asyncio.sleep(0)
    assert not ended.done()
    process.terminate()
    replica.ends.append(Ended(process.pid, await process.wait(), 1.0))
    replica._changed.set()
    assert (await ended).at == 1.0
