"""A check: one promise, and the query that finds whoever breaks it."""

from dataclasses import dataclass
from typing import Final

SETTLED: Final = "current_setting('audit.settled')::timestamptz"
"""SQL: what is older than this is no longer on its way: the moment of the audit less its patience."""
SINCE: Final = "current_setting('audit.since')::timestamptz"
"""SQL: the moment since which orders are judged; `-infinity` for all."""
QUIET: Final = "current_setting('audit.quiet')::boolean"
"""SQL: whether the system is said to be at rest, so that nothing is on its way."""


@dataclass(frozen=True)
class Check:
    """One promise that the records must keep.

    Its query costs no more than reading its tables and sorting them once. So whatever is set against a table
    is joined with it (`EXISTS` as a condition of its own, or an outer join): PostgreSQL runs a subquery under
    `OR`, or after `NOT IN`, once for each row when its result may be larger than `work_mem`.
    """

    invariant: str
    promise: str
    """In words, as it should be, of all services together: several checks may stand for one invariant."""
    breach: str
    """In words, where the query finds something; `{count}` and `{detail}` (of the first) are filled in.

    The sentence names the service, or the side, whose records are wrong: a breach in two is two sentences.
    """
    query: str
    """SQL that gives a row (`order_id`, `detail`) for each case; either may be NULL."""
