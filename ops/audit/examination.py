"""The examination: runs check after check, and remembers what was found and what could not be seen."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import asyncpg

from ops.audit.check import SINCE, Check
from ops.audit.report import Breach, Unseen

EXAMPLES: Final = 20
"""Most orders that are named for one breach."""

# `OFFSET 0` keeps this a look by the order's key for each row that is found, and there should be none.
_JUDGED: Final = f"""
    WHERE NOT EXISTS (
        SELECT FROM "order".orders o WHERE o.id = found.order_id AND o.created_at < {SINCE} OFFSET 0)"""
_FOUND: Final = """
    SELECT order_id, detail, count(*) OVER () AS count FROM ({query}) AS found {judged}
    ORDER BY order_id LIMIT {limit}"""
_GONE: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
)


class Examination:
    """What is looked at on one connection. What fails there leaves the rest to be seen."""

    def __init__(self, connection: "asyncpg.Connection[Any]", since: datetime | None) -> None:
        """With `since`, what concerns an order that was accepted before is not judged."""
        self.connection = connection
        self.breaches: list[Breach] = []
        self._judged = _JUDGED if since else ""
        self._unseen: dict[str, list[str]] = {}

    async def check(self, checks: Iterable[Check]) -> None:
        """Runs each, and notes the breaches."""
        for check in checks:
            async with self.attempt(check.invariant):
                found = await self.connection.fetch(
                    _FOUND.format(query=check.query, judged=self._judged, limit=EXAMPLES)
                )
                if found:
                    self.breaches.append(_breach(check, found))

    @asynccontextmanager
    async def attempt(self, *invariants: str) -> AsyncIterator[None]:
        """What is done in this context in one (sub)transaction is for these, which can't be seen if it fails.

        Raises what asyncpg does where the connection itself is lost.
        """
        try:
            async with self.connection.transaction():
                yield
        except asyncpg.PostgresError as error:
            if isinstance(error, _GONE) or self.connection.is_closed():
                raise
            self.miss(f"The database says: {str(error).splitlines()[0]}.", *invariants)

    def miss(self, reason: str, *invariants: str) -> None:
        """Notes that these could not be checked, or not in full."""
        self._unseen.setdefault(reason, []).extend(invariants)

    @property
    def unseen(self) -> tuple[Unseen, ...]:
        """What could not be seen, a line for each reason."""
        return tuple(
            Unseen(reason, tuple(sorted(set(ids), key=number))) for reason, ids in self._unseen.items()
        )


def number(invariant: str) -> int:
    """The number in an invariant's id."""
    return int(invariant[1:])


def _breach(check: Check, found: "list[asyncpg.Record]") -> Breach:
    count = found[0]["count"]
    return Breach(
        check.invariant,
        check.breach.format(count=count, detail=found[0]["detail"]),
        tuple(dict.fromkeys(row["order_id"] for row in found if row["order_id"])),
        count,
    )
