"""The simulation is itself tested: every classic mistake is found, by the invariant named for it."""

import pytest

from tests.simulation.broken import VARIANTS, Variant
from tests.simulation.house import House

MOST_SEEDS = 30
"""A mistake that so many schedules do not find would not be found."""


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_classic_mistake_is_found(simulated: House, variant: Variant) -> None:
    for seed in range(MOST_SEEDS):
        with variant.mistake():
            wrong = simulated.run(seed, variant.fates)
        assert not wrong.unforeseen, f"it dies of an exception that is no fate: {wrong.unforeseen}"
        if variant.invariant in {finding.invariant for finding in wrong.findings}:
            right = simulated.run(seed, variant.fates)
            assert not right.findings, str(right)
            return
    pytest.fail(f"{MOST_SEEDS} schedules did not show {variant.invariant}")
