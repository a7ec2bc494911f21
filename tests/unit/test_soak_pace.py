"""A soak ends with an error when its system has stalled; its load would wait for ever."""

import asyncio
import time
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest

from tests.faults.history import History
from tests.faults.soak import STALLED_SECONDS, Pace, SystemStalled


@pytest.fixture
def pace(tmp_path: Path) -> Pace:
    return Pace(10, 1, cast(Any, None), History(tmp_path / "history.jsonl"))


def test_a_stalled_system_ends_the_soak(pace: Pace) -> None:
    pace.progressed_at = time.monotonic() - STALLED_SECONDS - 1
    with pytest.raises(SystemStalled):
        pace.check()
    pace.history.close()


async def test_an_error_of_a_watcher_ends_the_soak(pace: Pace) -> None:
    async def watch() -> None:
        raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")

    pace.watchers = [asyncio.create_task(watch())]
    await asyncio.wait(pace.watchers)
    with pytest.raises(asyncpg.InternalClientError):
        pace.check()
    pace.history.close()


def test_a_system_that_progresses_does_not(pace: Pace) -> None:
    pace.check()
    pace.history.close()
