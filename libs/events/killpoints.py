"""Kill points: the moments at which a process may die, by name, so that tests can let it die at each of them.

Nothing that ships arms them. A test's own entry does, before it starts a service (`tests.faults.armed`), and
then a process dies exactly there.
"""

from collections.abc import Callable
from enum import StrEnum


class KillPoint(StrEnum):
    """A moment between two effects: what was done before it is done, what comes after it is not."""

    COMMITTING = "committing"
    """Everything is written, COMMIT is not sent."""
    COMMITTED = "committed"
    """The transaction is committed; nothing is handed over, answered or acknowledged."""
    ACKNOWLEDGING = "acknowledging"
    """What it left behind is handed over; the deliveries are not acknowledged."""
    ACKNOWLEDGED = "acknowledged"
    """The deliveries are acknowledged."""
    CLAIMED = "claimed"
    """Waiting rows are claimed, and nothing is done for them yet."""
    PERFORMING = "performing"
    """A row's work is about to be done: the broker, provider, carrier or mail server is not asked yet."""
    PERFORMED = "performed"
    """The other side has answered (for the relay: confirmed); nothing of it is committed."""


_reached: Callable[[KillPoint], None] | None = None


def reach(point: KillPoint) -> None:
    """Says that this moment has come. Does nothing unless armed."""
    if _reached is not None:
        _reached(point)


def arm(reached: Callable[[KillPoint], None] | None) -> None:
    """From now on `reached` is called at each kill point; None disarms them. For tests alone."""
    global _reached  # noqa: PLW0603  # the one switch of the process
    _reached = reached
