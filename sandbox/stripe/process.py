"""The server's process: `python -m sandbox.stripe`."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import typer
import uvicorn
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from chassis.process import PortTaken, listen
from chassis.settings import LogSettings, read
from chassis.stopping import stop_on_signals
from chassis.telemetry import configure_logging
from ops.errors import CommandFailed
from sandbox.stripe import api, control_api, ledger
from sandbox.stripe.account import Account
from sandbox.stripe.connection import Connection, ResettableProtocol
from sandbox.stripe.faults import Timing
from sandbox.stripe.ledger import LedgerInUse, UnreadableLedger

DRAIN_SECONDS: Final = 1
"""How long a stop waits for requests in flight. Requests that hang by plan are cut off."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers; the process has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def application(stripe: api.StripeApi, *, scripted: bool) -> Router:
    """Routes Stripe's paths, `/healthz` and, if `scripted`, the control API."""
    routes = [*stripe.routes(), Route("/healthz", _Health())]
    if scripted:
        routes += control_api.routes(stripe)
    return Router(routes, default=api.unrecognized, redirect_slashes=False)


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket) -> AsyncIterator[None]:
    """Serves the application on the socket inside the block."""
    config = uvicorn.Config(
        app,
        http=ResettableProtocol,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="stripe")
    try:
        yield
    finally:
        server.should_exit = True
        await task


async def serve(
    host: str, port: int, file: Path, *, api_key: str | None, scripted: bool, timing: Timing
) -> int:
    """Serves until SIGINT or SIGTERM; returns the exit status.

    Raises:
        CommandFailed: the port is taken, or the ledger can't be opened.
    """
    configure_logging("stripe", read(LogSettings))
    stop = stop_on_signals()
    try:
        with ledger.opened(file) as opened, listen(host, port) as listener:
            stripe = api.StripeApi(Account(opened, timing), api_key=api_key)
            async with serving(application(stripe, scripted=scripted), listener):
                address = f"http://{host}:{listener.getsockname()[1]}"
                typer.echo(f"Serving Stripe's API on {address}, with the ledger {file}.")
                await stop.wait()
    except (PortTaken, LedgerInUse, UnreadableLedger, OSError) as error:
        raise CommandFailed(f"{error} Choose another with --port or --ledger.") from error
    return 0


class _Health:
    """Says that the process runs."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Connection(scope, receive, send).answer_json(200, {"status": "ok"})
