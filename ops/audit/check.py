"""A check: one promise, and the query that finds whoever breaks it."""

from dataclasses import dataclass
from typing import Final

SETTLED: Final = "now() - current_setting('audit.patience')::interval"
"""SQL: what is older than this is no longer on its way. The audit sets the patience of its transaction."""
QUIET: Final = "current_setting('audit.quiet')::boolean"
"""SQL: whether the system is said to be at rest, so that nothing is on its way."""


@dataclass(frozen=True)
class Check:
    """One promise that the records must keep."""

    invariant: str
    promise: str
    """In words, as it should be."""
    breach: str
    """In words, where the query finds something; `{count}` and `{detail}` (of the first) are filled in."""
    query: str
    """SQL that gives a row (`order_id`, `detail`) for each case; either may be NULL."""
