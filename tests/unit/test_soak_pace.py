"""A soak ends with a sentence when its system has stopped working; its load would wait for ever."""

import time
from pathlib import Path
from typing import Any, cast

import pytest

from tests.faults.history import History
from tests.faults.soak import STALLED_SECONDS, Pace, SystemStalled


@pytest.fixture
def pace(tmp_path: Path) -> Pace:
    return Pace(10, 1, cast(Any, None), History(tmp_path / "history.jsonl"))


def test_a_system_in_which_no_order_comes_to_its_end_any_more_ends_the_soak(pace: Pace) -> None:
    pace.moved = time.monotonic() - STALLED_SECONDS - 1
    with pytest.raises(SystemStalled):
        pace.check()
    pace.history.close()


def test_a_system_in_which_orders_come_to_their_end_goes_on(pace: Pace) -> None:
    pace.check()
    pace.history.close()
