"""The HTTP application of a process or function: the APIs of its services, and their health."""

from collections.abc import Sequence

from fastapi import FastAPI

from chassis import health, problems
from chassis.service import Running


def application(running: Sequence[Running]) -> FastAPI:
    """One HTTP application for the APIs of these services, and their health."""
    app = FastAPI(title="Orderflow", docs_url="/docs", redoc_url=None)
    problems.install(app)
    app.include_router(health.routes([part.transactions for part in running]))
    for part in running:
        if part.router:
            app.include_router(part.router)
    return app
