"""Retry policies: when work is tried again, and when it is given up."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, TypeAlias

from events.backoff import backoff

Failure: TypeAlias = Literal["outage", "postponed", "unknown", "defect"]
"""Why a try failed.

`outage`: the other side is away, for every row. `postponed`: it does not accept this row now. `unknown`: no
answer came, so the work may be done. `defect`: a fault of our code, or an answer that makes no sense.
"""


@dataclass(frozen=True, slots=True)
class Tries:
    """The failed tries of a row, and how long it has waited."""

    attempts: int = 0
    """Failed tries of all kinds but `outage`."""
    defects: int = 0
    unknowns: int = 0
    waited: timedelta = timedelta()


FRESH: Final = Tries()
"""A row that was never tried."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When one kind of work is tried again, and when it is given up. Times are in seconds.

    Outages never count.
    """

    deadline: float
    """Time limit of one try. Without an answer by then the outcome is unknown."""
    first: float
    """The first pause. It doubles with each failed try; jitter shortens it by up to half."""
    longest: float
    """The longest pause."""
    defects: int | None = 8
    """So many defects make the row dead; None: never."""
    unknowns: int | None = None
    """So many unknown outcomes make the row dead; None: never."""
    patience: timedelta | None = None
    """How long the other side may postpone a row; None: without limit."""
    expired: Literal["dead", "refused"] = "dead"
    """The state of a row that was postponed for longer."""

    def pause(self, tries: Tries) -> float:
        """Seconds until the next try, after one more failure than `tries` says."""
        return backoff(tries.attempts, first=self.first, most=self.longest)

    def verdict(self, failure: Failure, tries: Tries) -> str | None:
        """The state of the row if this failure gives it up; None if it is tried again."""
        if failure == "defect" and self.defects is not None and tries.defects + 1 >= self.defects:
            return "dead"
        if failure == "unknown" and self.unknowns is not None and tries.unknowns + 1 >= self.unknowns:
            return "dead"
        if failure == "postponed" and self.patience is not None and tries.waited > self.patience:
            return self.expired
        return None
