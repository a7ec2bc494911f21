"""Two hundred schedules: whatever happens between two steps, everything is right in the end."""

import os

import pytest

from tests.simulation.house import House

TOGETHER = 10
ALONE = os.environ.get("SIMULATION_SEED")
"""A seed to run again alone."""


@pytest.mark.parametrize("first", [int(ALONE)] if ALONE else range(0, 200, TOGETHER))
def test_every_promise_is_kept(simulated: House, first: int) -> None:
    for seed in range(first, first + (1 if ALONE else TOGETHER)):
        outcome = simulated.run(seed)
        assert not outcome.findings, str(outcome)


@pytest.mark.parametrize("seed", [7, 17, 38, 39])
def test_a_seed_repeats_step_by_step(simulated: House, seed: int) -> None:
    assert simulated.run(seed).trace == simulated.run(seed).trace


def test_another_seed_is_another_schedule(simulated: House) -> None:
    assert simulated.run(1).trace != simulated.run(2).trace
