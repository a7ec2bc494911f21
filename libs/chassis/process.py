"""A service as a process: how it is started, and stopped without losing anything."""

import asyncio
import gc
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Final

import uvicorn
import uvloop
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis import problems
from chassis.application import application
from chassis.service import OpenService, Service, open_service
from chassis.settings import BrokerSettings, ServiceSettings, UnusableSettings, read
from chassis.stopping import Stopped, cancel_when, stop_on_signals
from chassis.telemetry import configure_logging
from events import rabbitmq

DRAIN_SECONDS: Final = 20
"""How long requests in flight may take to end after SIGTERM."""
KEEP_ALIVE_SECONDS: Final = 75
"""How long an idle connection stays open: longer than clients and gateways keep theirs, so they end it."""


class PortTaken(Exception):
    """The port can't be listened on: mostly because another program has it."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one. Raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise PortTaken(f"Port {port} on {host} can't be used: {error.strerror}.") from error
    return listener


class _Server(uvicorn.Server):
    """uvicorn, leaving signals to the process: it has more to stop than the server."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Answering:
    """Answers requests that are broken off at the end of the process, in place of uvicorn's plain 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except asyncio.CancelledError:
            if started or scope["type"] != "http":
                raise
            detail = "This process ends. Ask again, with the same Idempotency-Key if there was one."
            headers = {"Retry-After": "1", "Connection": "close"}
            ending = problems.Problem(503, "temporarily_unavailable", detail, headers=headers)
            await problems.answer(ending)(scope, receive, send)


async def run(
    running: Sequence[OpenService],
    listener: socket.socket,
    stop: asyncio.Event,
    *,
    answered: Callable[[], None] = lambda: None,
) -> None:
    """Serves and consumes until `stop` is set; then requests in flight end first, then the work they left.

    `answered` is called between the two, when no request will come any more.
    """
    config = uvicorn.Config(
        _Answering(application(running)),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        lifespan="off",
        proxy_headers=False,  # nothing here depends on where a request came from
    )
    server = _Server(config)
    gc.freeze()  # what is there by now stays: the garbage collector need not look through it again and again
    async with asyncio.TaskGroup() as parts:
        serving = parts.create_task(server.serve(sockets=[listener]), name="http")
        for part in running:
            parts.create_task(part.participant.run(), name=part.participant.service)
        await stop.wait()
        server.should_exit = True
        await serving
        answered()
        for part in running:
            part.participant.stop()


def serve(service: Service) -> None:
    """Runs one service as this process, until SIGTERM or SIGINT; a second signal ends it at once.

    Exits with a sentence where its settings or its port can't be used.
    """
    try:
        settings, broker = read(service.settings), read(BrokerSettings)
        configure_logging(service.name, settings)
        uvloop.run(_serve(service, settings, broker.broker_url))
    except (UnusableSettings, PortTaken) as unusable:
        sys.exit(str(unusable))


async def _serve(service: Service, settings: ServiceSettings, broker_url: str) -> None:
    stop = stop_on_signals()
    bus = rabbitmq.RabbitMQBus(broker_url)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(bus)
        try:
            async with cancel_when(stop.wait):
                running = await stack.enter_async_context(open_service(service, settings, bus))
        except Stopped:
            return
        # Not before it can serve: a gateway would give requests to a process that lets them wait.
        listener = stack.enter_context(listen(settings.host, settings.port))
        await run([running], listener, stop)
