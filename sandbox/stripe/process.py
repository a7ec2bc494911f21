"""The server as a process: `python -m sandbox.stripe`."""

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
from sandbox.stripe.ledger import LedgerInUse, UnreadableLedger
from sandbox.stripe.personality import Pace

DRAIN_SECONDS: Final = 1
"""How long requests in flight may take to end; what hangs is not worth waiting for."""


class _Server(uvicorn.Server):
    """uvicorn, leaving signals to the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def application(desk: api.Desk, *, scripted: bool) -> Router:
    """Stripe's paths, `/healthz`, and the personality's if the server is to be scripted."""
    routes = [*desk.routes(), Route("/healthz", _Health())]
    if scripted:
        routes += control_api.routes(desk)
    return Router(routes, default=api.unrecognized, redirect_slashes=False)


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket) -> AsyncIterator[None]:
    """Answers on the socket until the end of the block."""
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


async def serve(host: str, port: int, file: Path, *, api_key: str | None, scripted: bool, pace: Pace) -> int:
    """Answers as Stripe does until it is stopped; returns the exit status.

    Raises:
        CommandFailed: the port or the ledger can't be had.
    """
    configure_logging("stripe", read(LogSettings))
    stop = stop_on_signals()
    try:
        with ledger.opened(file) as opened, listen(host, port) as listener:
            desk = api.Desk(Account(opened, pace), api_key=api_key)
            async with serving(application(desk, scripted=scripted), listener):
                address = f"http://{host}:{listener.getsockname()[1]}"
                typer.echo(f"Answering as Stripe does on {address}, with the ledger {file}.")
                await stop.wait()
    except (PortTaken, LedgerInUse, UnreadableLedger, OSError) as error:
        raise CommandFailed(f"{error} Choose another with --port or --ledger.") from error
    return 0


class _Health:
    """The process runs."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Connection(scope, receive, send).say(200, {"status": "ok"})
