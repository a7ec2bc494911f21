"""Outages: how a runner tells that the other side is away from the failure of one row."""

import asyncio
import math
from typing import Final

from events.backoff import backoff

SUBJECTS: Final = 5
"""So many different subjects without an answer, and no answer between them, are an outage."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 10.0
"""Seconds between two tries in an outage: doubling from the first to the longest."""


def now() -> float:
    """The loop's time, in seconds."""
    return asyncio.get_running_loop().time()


class Outage:
    """Whether the other side answers, and when it may be asked again. Times are the loop's, in seconds.

    The other side saying that it is away begins an outage at once. A missing answer may be the fault of one
    row, so five different subjects in a row have to miss theirs. Any answer ends the outage, a refusal too.
    While it lasts one row at a time is tried, each about another subject.
    """

    def __init__(self) -> None:
        self.paused_until = -math.inf
        self._failures = 0
        self._unanswered: set[str] = set()
        self._probed: set[str] = set()

    @property
    def is_on(self) -> bool:
        """Whether there is an outage."""
        return self._failures > 0

    def answered(self) -> bool:
        """The other side answers. Returns whether that ends an outage."""
        was_on = self.is_on
        self._failures = 0
        self._unanswered.clear()
        self._probed.clear()
        return was_on

    def unavailable(self, subject: str, now: float, retry_after: float | None = None) -> bool:
        """A row about this subject learned that the other side is away. Returns whether an outage begins."""
        self._probed.add(subject)
        if now < self.paused_until:  # one of several rows that met the same failure
            return False
        begins = not self.is_on
        pause = backoff(self._failures, first=FIRST_PAUSE, most=LONGEST_PAUSE)
        self.paused_until = now + max(pause, retry_after or 0.0)
        self._failures += 1
        return begins

    def unanswered(self, subject: str, now: float) -> bool:
        """A row about this subject had no answer. Returns whether that begins an outage."""
        self._unanswered.add(subject)
        if self.is_on or len(self._unanswered) >= SUBJECTS:
            return self.unavailable(subject, now)
        return False

    def may_probe(self, subject: str) -> bool:
        """Whether no row about the subject has failed in this outage yet."""
        return subject not in self._probed

    def probe_anyone(self) -> None:
        """Every subject was tried: begin again."""
        self._probed.clear()
