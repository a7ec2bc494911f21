"""Two hundred schedules keep every promise."""

import os

import pytest

from tests.simulation.simulator import Simulator

SEEDS_PER_TEST = 10
ONLY_SEED = os.environ.get("SIMULATION_SEED")
"""If set, only this seed is run."""


@pytest.mark.parametrize("first", [int(ONLY_SEED)] if ONLY_SEED else range(0, 200, SEEDS_PER_TEST))
def test_every_promise_is_kept(simulated: Simulator, first: int) -> None:
    for seed in range(first, first + (1 if ONLY_SEED else SEEDS_PER_TEST)):
        outcome = simulated.run(seed)
        assert not outcome.findings, str(outcome)


@pytest.mark.parametrize("seed", [7, 17, 38, 39])
def test_a_seed_repeats_step_by_step(simulated: Simulator, seed: int) -> None:
    assert simulated.run(seed).trace == simulated.run(seed).trace


def test_another_seed_is_another_schedule(simulated: Simulator) -> None:
    assert simulated.run(1).trace != simulated.run(2).trace
