"""A service as a process: how it is put together, started, and stopped without losing anything."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import uvicorn
import uvloop
from fastapi import APIRouter, FastAPI

from chassis import database, health, migrations, problems
from chassis.settings import BrokerSettings, ServiceSettings
from chassis.stopping import Stopped, abandoned_when, stop_on_signals
from chassis.telemetry import configure_logging
from events import rabbitmq
from events.bus import Bus
from events.commit import Transactions
from events.participant import Participant, Runners
from events.worker import Handlers

DRAIN_SECONDS: Final = 20
"""How long requests in flight may take to end after SIGTERM."""
KEEP_ALIVE_SECONDS: Final = 75
"""How long an idle connection stays open: longer than clients and gateways keep theirs, so they end it."""


class PortTaken(Exception):
    """The port can't be listened on: mostly because another program has it."""


@dataclass(frozen=True)
class Assembly:
    """The parts of a service that are its own: who does the work it leaves behind, and its API."""

    runners: Runners = field(default_factory=dict)
    router: APIRouter | None = None


@dataclass(frozen=True)
class Service:
    """A service: its name, what it listens to, and how its own parts are put together."""

    name: str
    handlers: Handlers
    settings: Callable[..., ServiceSettings]
    """Takes from the environment what it is not given."""
    assemble: Callable[[Any, Transactions], AbstractAsyncContextManager[Assembly]]
    """Takes the service's settings and its transactions; whatever it opens it closes at the end."""


@dataclass(frozen=True)
class Running:
    """A service that is put together and ready to run."""

    participant: Participant
    transactions: Transactions
    router: APIRouter | None


@asynccontextmanager
async def put_together(service: Service, settings: ServiceSettings, bus: Bus) -> AsyncIterator[Running]:
    """The service on its database and a bus, once its schema is there."""
    connection = database.connect(
        settings.database_url, pool=settings.database_pool, application=service.name
    )
    async with connection as engine:
        transactions = Transactions(engine)
        await database.wait_for_schema(transactions, migrations.head(migrations.history_of(service.name)))
        async with service.assemble(settings, transactions) as assembly:
            participant = Participant(service.name, service.handlers, transactions, bus, assembly.runners)
            yield Running(participant, transactions, assembly.router)


def application(running: Sequence[Running]) -> FastAPI:
    """One HTTP application for the APIs of these services, and their health."""
    app = FastAPI(title="Orderflow", docs_url="/docs", redoc_url=None)
    problems.install(app)
    app.include_router(health.routes([part.transactions for part in running]))
    for part in running:
        if part.router:
            app.include_router(part.router)
    return app


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


async def run(
    running: Sequence[Running],
    listener: socket.socket,
    stop: asyncio.Event,
    *,
    answered: Callable[[], None] = lambda: None,
) -> None:
    """Serves and consumes until `stop` is set; then requests in flight end first, then the work they left.

    `answered` is called between the two, when no request will come any more.
    """
    config = uvicorn.Config(
        application(running),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        lifespan="off",
    )
    server = _Server(config)
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
    """Runs one service as this process, until SIGTERM or SIGINT; a second signal ends it at once."""
    settings = service.settings()
    configure_logging(service.name, settings)
    try:
        uvloop.run(_serve(service, settings))
    except PortTaken as taken:
        sys.exit(str(taken))


async def _serve(service: Service, settings: ServiceSettings) -> None:
    stop = stop_on_signals()
    bus = rabbitmq.RabbitMQBus(BrokerSettings().broker_url)  # type: ignore[call-arg]  # from the environment
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(listen(settings.host, settings.port))
        await stack.enter_async_context(bus)
        try:
            async with abandoned_when(stop.wait):
                running = await stack.enter_async_context(put_together(service, settings, bus))
        except Stopped:
            return
        await run([running], listener, stop)
