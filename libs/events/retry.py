"""Retry policies: when work is tried again, and when it is given up."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, TypeAlias

from events.backoff import backoff

Failure: TypeAlias = Literal["outage", "postponed", "unknown", "defect"]
"""Why a try failed.

`outage`: the other side is away, for every row. `postponed`: it does not take this row now. `unknown`: no
answer came, so the work may be done. `defect`: our own fault, or an answer that makes no sense.
"""


@dataclass(frozen=True, slots=True)
class Tries:
    """How often a row was tried without success, and for how long it has waited."""

    attempts: int = 0
    """Failed tries of every kind but `outage`."""
    defects: int = 0
    unknowns: int = 0
    waited: timedelta = timedelta()


FRESH: Final = Tries()
"""A row that was never tried."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When one kind of work is tried again, and when it is given up. Times are in seconds.

    Outages count against no row.
    """

    deadline: float
    """For one try. Work that has no answer by then has an unknown outcome."""
    first: float
    """The first pause. It doubles with every failed try; jitter takes up to half of it away."""
    longest: float
    """The longest pause."""
    defects: int | None = 8
    """The row is dead after so many defects; None: never."""
    unknowns: int | None = None
    """The row is dead after so many unknown outcomes; None: it is asked for ever."""
    patience: timedelta | None = None
    """How long the other side may postpone a row; None: for ever."""
    expired: Literal["dead", "refused"] = "dead"
    """What becomes of a row that was postponed for longer."""

    def pause(self, tries: Tries) -> float:
        """Seconds until a row is tried again that failed once more than `tries` says."""
        return backoff(tries.attempts, first=self.first, most=self.longest)

    def verdict(self, failure: Failure, tries: Tries) -> str | None:
        """The state of a row that is given up after one more failure; None: it is tried again."""
        if failure == "defect" and self.defects is not None and tries.defects + 1 >= self.defects:
            return "dead"
        if failure == "unknown" and self.unknowns is not None and tries.unknowns + 1 >= self.unknowns:
            return "dead"
        if failure == "postponed" and self.patience is not None and tries.waited > self.patience:
            return self.expired
        return None
