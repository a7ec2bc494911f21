"""Waiting by polling, for conditions that give no signal."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeVar

from events.memory import MemoryBus

T = TypeVar("T")


async def eventually(
    probe: Callable[[], Awaitable[T]], holds: Callable[[T], bool], seconds: float = 60.0
) -> T:
    """Probes until the answer holds, and returns it. Fails with the last answer after `seconds`.

    The limit only ends a test that hangs. It promises no duration.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not holds(answer := await probe()):
        assert loop.time() < deadline, f"still not so after {seconds} s: {answer!r}"
        await asyncio.sleep(0.02)
    return answer


def patient_bus(bindings: Mapping[str, Collection[str]]) -> MemoryBus:
    """A bus whose publishers wait for slow services, so a test need not publish again."""
    return MemoryBus(bindings, lag_seconds=3600)
