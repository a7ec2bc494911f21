"""The simulation finds every classic mistake, by the invariant that is named for it."""

import pytest

from tests.simulation.broken import VARIANTS, Variant
from tests.simulation.simulator import Simulator

MAX_SEEDS = 30
"""A mistake must be found within so many schedules."""


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_classic_mistake_is_found(simulated: Simulator, variant: Variant) -> None:
    for seed in range(MAX_SEEDS):
        with variant.mistake():
            wrong = simulated.run(seed, variant.endings)
        assert not wrong.unexpected, f"it raises unexpected exceptions: {wrong.unexpected}"
        if variant.invariant in {finding.invariant for finding in wrong.findings}:
            right = simulated.run(seed, variant.endings)
            assert not right.findings, str(right)
            return
    pytest.fail(f"{MAX_SEEDS} schedules did not show {variant.invariant}")
