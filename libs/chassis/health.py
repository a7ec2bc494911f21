"""Health over HTTP: `/healthz` says that the process runs, `/readyz` that it can do its work.

A service is ready while its database answers and its clock agrees with the database's. A broker outage leaves
it ready: orders are still accepted, and what they announce waits in the outbox.
"""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from events import clock
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
        """The process can do its work: its database answers, and its clock agrees with the database's."""
        try:
            for transactions in databases:
                async with transactions() as tx:
                    wrong = clock.fault(await clock.offset(tx))
                if wrong:
                    response.status_code = 503
                    return Health(status=wrong)
        except DatabaseUnavailable:
            response.status_code = 503
            return Health(status="database unavailable")
        return Health(status="ok")

    return router
