"""What a fault is: something that breaks, seen to have broken, and made whole again."""

from typing import Protocol

from tests.faults.cluster import Cluster


class NoEffect(Exception):
    """The fault was not seen to have had its effect, so it does not count."""


class Misbehaved(Exception):
    """The fault had its effect, and the system did then what it must never do."""


class Fault(Protocol):
    """One way of breaking one thing."""

    @property
    def name(self) -> str:
        """What is broken, and where."""
        ...

    async def strike(self, cluster: Cluster) -> str:
        """Breaks it; returns what was seen of the effect, in words. Raises NoEffect."""
        ...

    async def heal(self, cluster: Cluster) -> None:
        """Makes it whole again; safe also when nothing is broken. Processes that died start by themselves."""
        ...
