"""One system in containers for the whole run, always removed; a failed test shows the containers' logs."""

from collections.abc import Generator, Iterator

import pytest

from tests.e2e.shop import Shop
from tests.e2e.stack import Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The system, built from this checkout; every container is healthy."""
    stack = Stack()
    try:
        stack.build()
        stack.up()
        yield stack
    finally:
        stack.remove()


@pytest.fixture
def shop(stack: Stack) -> Iterator[Shop]:
    """A caller of the system."""
    shop = Shop(stack)
    yield shop
    shop.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the containers' latest logs to the report of a failed test."""
    report = yield
    stack = item.funcargs.get("stack")
    if report.failed and call.when == "call" and isinstance(stack, Stack):
        report.sections.append(("containers", stack.logs()))
    return report
