"""A check: one promise, and the query that finds its breaches."""

from dataclasses import dataclass
from typing import Final

CUTOFF: Final = "current_setting('audit.cutoff')::timestamptz"
"""SQL: the snapshot's time less the audit's patience. Work that is older than this must be finished."""
SINCE: Final = "current_setting('audit.since')::timestamptz"
"""SQL: only orders accepted since this time are judged; `-infinity` for all."""
QUIET: Final = "current_setting('audit.quiet')::boolean"
"""SQL: whether the system is at rest, so that nothing may be in transit."""


@dataclass(frozen=True)
class Check:
    """One promise that the records must keep.

    Its query must cost no more than reading its tables and sorting them once. So join a table with whatever
    it is compared with (`EXISTS` as a condition of its own, or an outer join): PostgreSQL runs a subquery
    under `OR`, or after `NOT IN`, once for each row when its result may exceed `work_mem`.
    """

    invariant: str
    """The promise's id in docs/guarantees.md; several checks may share one."""
    promise: str
    """The promise as a sentence about all services together."""
    breach: str
    """The sentence for a breach, with `{count}` cases and the `{detail}` of the first.

    It names the service, or the provider, whose records are wrong: a breach in two gives two sentences.
    """
    query: str
    """SQL that returns a row (`order_id`, `detail`) for each case; either may be NULL."""
