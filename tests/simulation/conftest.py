"""One simulator for each test process."""

from collections.abc import Iterator

import pytest

from tests.simulation.simulator import Simulator, simulator


@pytest.fixture(scope="session")
def simulated(postgres: str) -> Iterator[Simulator]:
    """Runs schedules."""
    with simulator(postgres) as simulator_:
        yield simulator_
