"""Schedules run in a house of their own per test process."""

from collections.abc import Iterator

import pytest

from tests.simulation.house import House, house


@pytest.fixture(scope="session")
def simulated(postgres: str) -> Iterator[House]:
    """Where schedules run."""
    with house(postgres) as house_:
        yield house_
