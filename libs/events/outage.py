"""Outages: tells an outage of the other side from the failure of single rows."""

import asyncio
import math
from typing import Final

from events.backoff import backoff

SUBJECTS: Final = 5
"""So many different subjects in a row without an answer are an outage."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 10.0
"""Seconds between two probes in an outage; they double from the first to the longest."""


def now() -> float:
    """The loop's time, in seconds."""
    return asyncio.get_running_loop().time()


class Outage:
    """Whether there is an outage, and when the next probe is due. Times are the loop's, in seconds.

    An outage begins at once when the other side says that it is away. A missing answer may be one row's
    fault, so an outage begins after five different subjects in a row without one. Any answer ends it, also a
    refusal. During an outage rows are tried one at a time, each about another subject.
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
        """Notes an answer. Returns whether it ends an outage."""
        was_on = self.is_on
        self._failures = 0
        self._unanswered.clear()
        self._probed.clear()
        return was_on

    def unavailable(self, subject: str, now: float, retry_after: float | None = None) -> bool:
        """Notes that the other side is away for this subject. Returns whether an outage begins."""
        self._probed.add(subject)
        if now < self.paused_until:  # several rows met the same failure
            return False
        begins = not self.is_on
        pause = backoff(self._failures, first=FIRST_PAUSE, most=LONGEST_PAUSE)
        self.paused_until = now + max(pause, retry_after or 0.0)
        self._failures += 1
        return begins

    def unanswered(self, subject: str, now: float) -> bool:
        """Notes that a row about this subject got no answer. Returns whether an outage begins."""
        self._unanswered.add(subject)
        if self.is_on or len(self._unanswered) >= SUBJECTS:
            return self.unavailable(subject, now)
        return False

    def may_probe(self, subject: str) -> bool:
        """Whether no row about this subject has failed in this outage."""
        return subject not in self._probed

    def probe_anyone(self) -> None:
        """Allows every subject again."""
        self._probed.clear()
