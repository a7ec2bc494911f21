"""Meters of the CPU time and memory of processes and containers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import psutil
from testcontainers.core.container import DockerContainer

Meter = Callable[[], "Usage"]
"""Reads the CPU and memory that a process or container has used since its start."""

_MIB: Final = 1 << 20


@dataclass(frozen=True)
class Usage:
    """CPU and memory used so far."""

    cpu: float
    """Seconds of one core, user and system."""
    memory: float
    """Resident MiB. Memory that several processes share is counted for each of them."""


def of_process(pid: int) -> Usage:
    """Measures a process and its descendants, including those that ended and were waited for."""
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
    """Measures a container by its control group."""
    stats = container.get_wrapped_container().stats(stream=False, one_shot=True)
    memory = stats["memory_stats"]
    pages = memory["stats"]
    anonymous = pages.get("anon", pages.get("rss", 0))  # control groups of version 2, and of version 1
    return Usage(stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9, anonymous / _MIB)


def total(usages: Sequence[Usage]) -> Usage:
    """Adds them up."""
    return Usage(sum(usage.cpu for usage in usages), sum(usage.memory for usage in usages))
