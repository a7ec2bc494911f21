"""The checker: runs checks on one connection, and collects breaches and what could not be checked."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import asyncpg

from ops.audit.check import SINCE, Check
from ops.audit.report import Breach, Unseen

EXAMPLES: Final = 20
"""Most orders that are named for one breach."""

# `OFFSET 0` stops the planner from joining all orders: cases are rare, so one lookup each is cheaper.
_SINCE_FILTER: Final = f"""
    WHERE NOT EXISTS (
        SELECT FROM "order".orders o WHERE o.id = found.order_id AND o.created_at < {SINCE} OFFSET 0)"""
_CASES: Final = """
    SELECT order_id, detail, count(*) OVER () AS count FROM ({query}) AS found {since_filter}
    ORDER BY order_id LIMIT {limit}"""
_CONNECTION_LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
)


class Checker:
    """Runs checks on one connection; a check that fails to run does not stop the others."""

    def __init__(self, connection: "asyncpg.Connection[Any]", since: datetime | None) -> None:
        """With `since`, cases of orders that were accepted earlier are ignored."""
        self.connection = connection
        self.breaches: list[Breach] = []
        self._since_filter = _SINCE_FILTER if since else ""
        self._unseen: dict[str, list[str]] = {}

    async def run(self, checks: Iterable[Check]) -> None:
        """Runs each check and collects its breach, if any."""
        for check in checks:
            async with self.unseen_on_failure(check.invariant):
                cases = await self.connection.fetch(
                    _CASES.format(query=check.query, since_filter=self._since_filter, limit=EXAMPLES)
                )
                if cases:
                    self.breaches.append(_breach(check, cases))

    @asynccontextmanager
    async def unseen_on_failure(self, *invariants: str) -> AsyncIterator[None]:
        """Runs the body in a (sub)transaction; if a statement fails, these invariants become unseen.

        Raises asyncpg's error when the connection itself is lost.
        """
        try:
            async with self.connection.transaction():
                yield
        except asyncpg.PostgresError as error:
            if isinstance(error, _CONNECTION_LOST) or self.connection.is_closed():
                raise
            self.add_unseen(f"The database says: {str(error).splitlines()[0]}.", *invariants)

    def add_unseen(self, reason: str, *invariants: str) -> None:
        """Records that these could not be checked, or not in full."""
        self._unseen.setdefault(reason, []).extend(invariants)

    @property
    def unseen(self) -> tuple[Unseen, ...]:
        """One entry for each reason why something could not be checked."""
        return tuple(
            Unseen(reason, tuple(sorted(set(ids), key=number_of))) for reason, ids in self._unseen.items()
        )


def number_of(invariant: str) -> int:
    """The number in an invariant's id: 6 for `I6`."""
    return int(invariant[1:])


def _breach(check: Check, cases: "list[asyncpg.Record]") -> Breach:
    count = cases[0]["count"]
    return Breach(
        check.invariant,
        check.breach.format(count=count, detail=cases[0]["detail"]),
        tuple(dict.fromkeys(row["order_id"] for row in cases if row["order_id"])),
        count,
    )
