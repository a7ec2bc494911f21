"""Waiting for what gives no signal."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeVar

from events.memory import MemoryBus

T = TypeVar("T")


async def eventually(
    probe: Callable[[], Awaitable[T]], holds: Callable[[T], bool], seconds: float = 60.0
) -> T:
    """Asks until the answer holds, and returns it; fails with the last answer when the time is over.

    The limit only ends what hangs: it says nothing of how long anything may take, and machines are shared.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not holds(answer := await probe()):
        assert loop.time() < deadline, f"still not so after {seconds} s: {answer!r}"
        await asyncio.sleep(0.02)
    return answer


def patient_bus(bindings: Mapping[str, Collection[str]]) -> MemoryBus:
    """A bus whose publishers wait for as long as a service takes, so that a test may publish once."""
    return MemoryBus(bindings, lag_seconds=3600)
