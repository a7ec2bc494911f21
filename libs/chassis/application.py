"""The HTTP application of a process or function: the APIs of its services, and health."""

from collections.abc import Iterable, Sequence
from typing import Final

from fastapi import FastAPI, Request
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from chassis import health, problems
from chassis.body import StrictJSONRoute
from chassis.service import OpenService


def application(services: Sequence[OpenService]) -> ASGIApp:
    """Makes one HTTP application of the services' APIs and the health routes."""
    app = FastAPI(title="Orderflow", docs_url="/docs", redoc_url=None)
    problems.install(app)
    app.include_router(health.routes([service.transactions for service in services]))
    routers = [service.router for service in services if service.router]
    for router in routers:
        app.include_router(router)
    return Shortcut(app, [route for router in routers for route in router.routes])


class Shortcut:
    """The application, with a shortcut to its routes that read a strict JSON body (decision 29).

    FastAPI's layers do nothing for such a request, and cost more than its handling. The answer is the same
    either way.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app: Final = app
        self._handlers: Final = {
            (method, route.path): problems.explaining(route.get_route_handler())
            for route in routes
            if isinstance(route, StrictJSONRoute) and route.body_field
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        handle = self._handlers.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if handle is None:
            await self._app(scope, receive, send)
        else:
            response = await handle(Request(scope, receive))
            await response(scope, receive, send)
