"""Pauses: a message that does not arrive although it was sent is sent again, but ever less often."""

import time
from typing import Final
from uuid import UUID

FIRST: Final = 60.0
LONGEST: Final = 3600.0


class Pauses:
    """For each message and service the seconds until it may be sent again: doubling from FIRST to LONGEST.

    What was not sent again for twice as long as it was to rest is forgotten.
    """

    def __init__(self) -> None:
        self._resting: dict[tuple[UUID, str], tuple[float, float]] = {}
        """Until when (monotonic), and how long that rest was."""

    def over(self, message_id: UUID, service: str) -> bool:
        """Whether it may be sent."""
        until, _ = self._resting.get((message_id, service), (0.0, 0.0))
        return time.monotonic() >= until

    def begin(self, message_id: UUID, service: str) -> None:
        """It is being sent."""
        _, rested = self._resting.get((message_id, service), (0.0, 0.0))
        pause = min(LONGEST, rested * 2) or FIRST
        self._resting[message_id, service] = (time.monotonic() + pause, pause)

    def forget(self) -> None:
        """Drops what is long over."""
        now = time.monotonic()
        over = [key for key, (until, rested) in self._resting.items() if now > until + 2 * rested]
        for key in over:
            del self._resting[key]
