"""How the benchmark measures the machine: a figure for each round, and the spread of the rounds."""

import pytest

from bench.machine import Steadiness, loop_seconds


def test_the_spread_is_from_the_least_to_the_most_by_the_middle() -> None:
    seen = Steadiness.of([110.0, 100.0, 90.0])
    assert seen.median == 100.0
    assert seen.spread == pytest.approx(0.2)


def test_a_machine_is_steady_while_its_rounds_are_alike() -> None:
    assert Steadiness.of([100.0, 104.0, 98.0]).is_steady
    assert not Steadiness.of([100.0, 130.0, 98.0]).is_steady
    assert Steadiness.of([100.0]).is_steady


def test_the_loop_takes_long_enough_to_be_timed() -> None:
    assert loop_seconds() > 0.05
