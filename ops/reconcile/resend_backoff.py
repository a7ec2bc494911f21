"""Backoff between resends of one message to one service: it doubles while the message does not arrive."""

import time
from typing import Final
from uuid import UUID

FIRST: Final = 60.0
LONGEST: Final = 3600.0


class ResendBackoff:
    """Waits FIRST seconds after the first send of a message to a service, then twice as long, up to LONGEST.

    Entries that no send has renewed for twice their wait after its end are dropped by `drop_expired`.
    """

    def __init__(self) -> None:
        self._waits: dict[tuple[UUID, str], tuple[float, float]] = {}
        """For each message and service: when its wait ends (monotonic), and how long it is."""

    def is_due(self, message_id: UUID, service: str) -> bool:
        """Whether the message may be sent to the service now."""
        until, _ = self._waits.get((message_id, service), (0.0, 0.0))
        return time.monotonic() >= until

    def start(self, message_id: UUID, service: str) -> None:
        """Starts the wait after a send."""
        _, last = self._waits.get((message_id, service), (0.0, 0.0))
        wait = min(LONGEST, last * 2) or FIRST
        self._waits[message_id, service] = (time.monotonic() + wait, wait)

    def drop_expired(self) -> None:
        """Drops entries whose wait ended long ago."""
        now = time.monotonic()
        expired = [key for key, (until, wait) in self._waits.items() if now > until + 2 * wait]
        for key in expired:
            del self._waits[key]
