"""The HTTP application of a process or function: the APIs of its services, and their health."""

from collections.abc import Iterable, Sequence
from typing import Final

from fastapi import FastAPI, Request
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from chassis import health, problems
from chassis.body import StrictJSONRoute
from chassis.service import OpenService


def application(running: Sequence[OpenService]) -> ASGIApp:
    """One HTTP application for the APIs of these services, and their health."""
    app = FastAPI(title="Orderflow", docs_url="/docs", redoc_url=None)
    problems.install(app)
    app.include_router(health.routes([part.transactions for part in running]))
    routers = [part.router for part in running if part.router]
    for router in routers:
        app.include_router(router)
    return Shortcut(app, [route for router in routers for route in router.routes])


class Shortcut:
    """The application, with a shortcut to its routes that read a strict JSON body (decision 29).

    FastAPI's layers would do nothing for such a request, and cost more than the rest of it. Its answer is the
    same by either way.
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
        """Answers one request, by the shortcut if it has one."""
        handle = self._handlers.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if handle is None:
            await self._app(scope, receive, send)
        else:
            response = await handle(Request(scope, receive))
            await response(scope, receive, send)
