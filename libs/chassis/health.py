"""Health over HTTP: `/healthz` says that the process runs, `/readyz` that it can do its work.

A service is ready while its database answers. A broker outage leaves it ready: orders are still accepted, and
what they announce waits in the outbox.

`python -m chassis.health` asks this machine's own service and exits 0 when it is ready: a container's check.
"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import httpx
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from events.commit import Transactions
from events.errors import DatabaseUnavailable


class Health(BaseModel):
    """How a process is doing."""

    status: Annotated[str, Field(examples=["ok"])]


def routes(databases: Sequence[Transactions]) -> APIRouter:
    """The two health routes of a process with these databases."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> Health:
        """The process runs."""
        return Health(status="ok")

    @router.get("/readyz", responses={503: {"model": Health}})
    async def readyz(response: Response) -> Health:
        """The process can do its work: its database answers."""
        try:
            for transactions in databases:
                async with transactions() as tx:
                    await tx.execute("SELECT 1")
        except DatabaseUnavailable:
            response.status_code = 503
            return Health(status="database unavailable")
        return Health(status="ok")

    return router


if __name__ == "__main__":
    url = f"http://127.0.0.1:{os.environ.get('PORT', '8000')}/readyz"
    try:
        ready = httpx.get(url, trust_env=False, timeout=3).is_success
    except httpx.HTTPError:
        ready = False
    sys.exit(0 if ready else 1)
