"""Kill points: named moments at which tests let a process die.

Product code never arms them. The entry point of a test does, before it starts a service
(`tests.faults.armed`).
"""

from collections.abc import Callable
from enum import StrEnum


class KillPoint(StrEnum):
    """A moment between two effects: the one before it is complete, the one after it has not begun."""

    COMMITTING = "committing"
    """All statements are sent but the COMMIT."""
    COMMITTED = "committed"
    """The transaction is committed, but not handed over, answered or acknowledged yet."""
    ACKNOWLEDGING = "acknowledging"
    """Messages and intents are handed over. The deliveries are not acknowledged yet."""
    ACKNOWLEDGED = "acknowledged"
    """The deliveries are acknowledged."""
    CLAIMED = "claimed"
    """Rows are claimed. No work has begun on them."""
    PERFORMING = "performing"
    """The broker, provider, carrier or mail server is about to be asked."""
    PERFORMED = "performed"
    """The other side has answered (for the relay: confirmed). The outcome is not committed."""


_reached: Callable[[KillPoint], None] | None = None


def reach(point: KillPoint) -> None:
    """Marks that the process is at this point. Does nothing unless armed."""
    if _reached is not None:
        _reached(point)


def arm(reached: Callable[[KillPoint], None] | None) -> None:
    """From now on `reached` is called at each kill point; None disarms them. Only for tests."""
    global _reached  # noqa: PLW0603  # the one switch of the process
    _reached = reached
