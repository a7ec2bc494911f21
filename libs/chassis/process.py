"""A service as a process: starts it, and stops it without losing work."""

import asyncio
import gc
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Final

import uvicorn
import uvloop
from starlette.responses import Response
from starlette.types import Scope

from chassis import problems
from chassis.application import application
from chassis.service import OpenService, Service, open_service
from chassis.settings import BrokerSettings, ServiceSettings, UnusableSettings, read
from chassis.stopping import Stopped, cancel_when, stop_on_signals
from chassis.telemetry import configure_logging
from events import rabbitmq

DRAIN_SECONDS: Final = 20
"""How long running requests may take after SIGTERM."""
KEEP_ALIVE_SECONDS: Final = 75
"""Idle connections stay open longer than those of clients and gateways, so that these close them."""


class PortTaken(Exception):
    """The port can't be listened on, usually because another program uses it."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free port. Raises PortTaken."""
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
    """uvicorn without signal handlers: the process stops more than the server."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _cancelled(_: Scope) -> Response:
    """The answer to requests that are cancelled at the end of the process, instead of uvicorn's 500."""
    detail = "This process ends. Ask again, with the same Idempotency-Key if there was one."
    headers = {"Retry-After": "1", "Connection": "close"}
    return problems.answer(problems.Problem(503, "temporarily_unavailable", detail, headers=headers))


async def run(
    services: Sequence[OpenService],
    listener: socket.socket,
    stop: asyncio.Event,
    *,
    answered: Callable[[], None] = lambda: None,
) -> None:
    """Serves and consumes until `stop` is set. Then running requests end first, and the work they left next.

    `answered` is called between the two.
    """
    config = uvicorn.Config(
        problems.Fallback(application(services), asyncio.CancelledError, _cancelled),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        lifespan="off",
        proxy_headers=False,  # no answer depends on the client's address
    )
    server = _Server(config)
    gc.freeze()  # objects made until now live as long as the process
    async with asyncio.TaskGroup() as parts:
        serving = parts.create_task(server.serve(sockets=[listener]), name="http")
        for service in services:
            parts.create_task(service.participant.run(), name=service.participant.service)
        await stop.wait()
        server.should_exit = True
        await serving
        answered()
        for service in services:
            service.participant.stop()


def serve(service: Service) -> None:
    """Runs one service as this process until SIGTERM or SIGINT; a second signal ends it at once.

    Exits with a sentence if its settings or its port can't be used.
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
                opened = await stack.enter_async_context(open_service(service, settings, bus))
        except Stopped:
            return
        # Only now: a gateway would send requests to a listening process that can't answer yet.
        listener = stack.enter_context(listen(settings.host, settings.port))
        await run([opened], listener, stop)
