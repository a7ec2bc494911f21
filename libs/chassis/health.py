"""Health over HTTP: `/healthz` says that the process runs, `/readyz` that it can do its work.

A service is ready while its database accepts writes and its clock agrees with the database's. It stays ready
in an outage of the broker: orders are accepted, and their messages wait in the outbox.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Annotated, Final
from uuid import uuid4

import asyncpg
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from events import clock
from events.errors import DatabaseUnavailable
from events.transactions import Transactions

PROBE_SECONDS: Final = 3.0
"""A database that takes longer to commit is not ready."""
FRESH_SECONDS: Final = 1.0
"""How long a result is reused, so that frequent requests do not load the database."""

_PROBE: Final = "CREATE UNLOGGED TABLE {name} AS SELECT 1 AS ready; DROP TABLE {name}"


class Health(BaseModel):
    """How a process is doing."""

    status: Annotated[str, Field(examples=["ok"])]


class Readiness:
    """Whether one database accepts writes and its clock agrees with this process's.

    The probe creates a table with one row and drops it. It fails on a read-only server, and on a full disk,
    because PostgreSQL has to allocate a page; a row of an old table might still fit into a page.
    """

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._probing = asyncio.Lock()
        self._obstacle: str | None = None
        self._probed_at = -math.inf

    async def obstacle(self) -> str | None:
        """Why this process is not ready, or None. The result is at most FRESH_SECONDS old."""
        async with self._probing:
            if time.monotonic() - self._probed_at >= FRESH_SECONDS:
                self._obstacle = await self._probe()
                self._probed_at = time.monotonic()
            return self._obstacle

    async def _probe(self) -> str | None:
        try:
            async with asyncio.timeout(PROBE_SECONDS), self._transactions() as tx:
                await tx.execute(_PROBE.format(name=f"readiness_{uuid4().hex}"))
                wrong_clock = clock.fault(await clock.offset(tx))
        except (DatabaseUnavailable, TimeoutError, asyncpg.PostgresError):
            return "database unavailable"
        return wrong_clock


def routes(databases: Sequence[Transactions]) -> APIRouter:
    """The health routes of a process with these databases."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> Health:
        """The process runs."""
        return Health(status="ok")

    readiness = [Readiness(transactions) for transactions in databases]

    @router.get("/readyz", responses={503: {"model": Health}})
    async def readyz(response: Response) -> Health:
        """The process can do its work: its database takes writes, and they agree on the time."""
        for each in readiness:
            if obstacle := await each.obstacle():
                response.status_code = 503
                return Health(status=obstacle)
        return Health(status="ok")

    return router
