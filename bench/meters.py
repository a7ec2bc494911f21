"""Meters: what CPU time and memory processes and containers have used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import psutil
from testcontainers.core.container import DockerContainer

Meter = Callable[[], "Usage"]
"""Reads what something has used since it was started."""

_MIB: Final = 1 << 20


@dataclass(frozen=True)
class Usage:
    """What was used until now."""

    cpu: float
    """Seconds of one core, user and system."""
    memory: float
    """MiB, resident; memory that several processes share counts once for each."""


def of_process(pid: int) -> Usage:
    """A process and all that it has started, also those that have ended and were waited for."""
    try:
        root = psutil.Process(pid)
        alive = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return Usage(0.0, 0.0)
    cpu, memory = 0.0, 0.0
    for process in alive:
        try:
            times = process.cpu_times()
            cpu += times.user + times.system + times.children_user + times.children_system
            memory += process.memory_info().rss / _MIB
        except psutil.NoSuchProcess:
            continue
    return Usage(cpu, memory)


def of_container(container: DockerContainer) -> Usage:
    """A container, as the kernel accounts for its control group."""
    said = container.get_wrapped_container().stats(stream=False, one_shot=True)
    memory = said["memory_stats"]
    pages = memory["stats"]
    anonymous = pages.get("anon", pages.get("rss", 0))  # version 2 of control groups, and version 1
    return Usage(said["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9, anonymous / _MIB)


def total(usages: Sequence[Usage]) -> Usage:
    """All of them together."""
    return Usage(sum(usage.cpu for usage in usages), sum(usage.memory for usage in usages))
