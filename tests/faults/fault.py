"""The interface of a fault: it breaks something, shows evidence of the effect, and repairs it."""

from typing import Protocol

from tests.faults.cluster import Cluster


class NoEffect(Exception):
    """No effect of the fault was observed, so it does not count."""


class Misbehaved(Exception):
    """The fault had its effect, and the system then did something that it must never do."""


class Fault(Protocol):
    """One way of breaking one thing."""

    @property
    def name(self) -> str:
        """What is broken and where."""
        ...

    async def strike(self, cluster: Cluster) -> str:
        """Breaks it, and returns the evidence of the effect as a sentence. Raises NoEffect or Misbehaved."""
        ...

    async def heal(self, cluster: Cluster) -> None:
        """Repairs it; safe if nothing is broken. Processes that died are restarted by their replicas."""
        ...
