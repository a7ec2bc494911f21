"""A service: its parts, and how it is opened on a database and a bus."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from chassis import database, revisions
from chassis.settings import ServiceSettings
from events.bus import Bus
from events.cleaners import AttemptsCleaner, DefaultPartitionCleaner, InterventionsCleaner
from events.clock import ClockWatch
from events.maintenance import Chore
from events.participant import Participant, Runners
from events.partitions import PartitionRenewal
from events.transactions import Transactions
from events.worker import Handlers

if TYPE_CHECKING:  # only services with an API load it
    from fastapi import APIRouter


@dataclass(frozen=True)
class Assembly:
    """The parts that only this service has, such as runners for its intents, chores, and an API."""

    handlers: Handlers | None = None
    """Where handlers need settings: those for the same events, in place of the service's."""
    runners: Runners = field(default_factory=dict)
    chores: Sequence[Chore] = ()
    router: "APIRouter | None" = None


@dataclass(frozen=True)
class Service:
    """A service: its name, its handlers, and a function that makes its own parts."""

    name: str
    handlers: Handlers
    settings: Callable[..., ServiceSettings]
    """Reads from the environment what is not passed to it."""
    assemble: Callable[[Any, Transactions], AbstractAsyncContextManager[Assembly]]
    """Makes the parts from settings and transactions, and closes them at the end of the context."""


@dataclass(frozen=True)
class OpenService:
    """A service with its database open, ready to run: `process.run` runs its participant."""

    participant: Participant
    transactions: Transactions
    router: "APIRouter | None"


@asynccontextmanager
async def open_service(service: Service, settings: ServiceSettings, bus: Bus) -> AsyncIterator[OpenService]:
    """Opens the service's database, waits for its schema, and makes its participant on the bus."""
    connection = database.connect(
        settings.database_url,
        pool=settings.database_pool,
        application=service.name,
        plans="force_generic_plan",
    )
    async with connection as pool:
        await database.wait_for_schema(pool, revisions.head(revisions.history_of(service.name)))
        transactions = Transactions(pool)
        async with service.assemble(settings, transactions) as assembly:
            handlers = assembly.handlers or service.handlers
            assert handlers.keys() == service.handlers.keys()
            participant = Participant(
                service.name,
                handlers,
                transactions,
                bus,
                assembly.runners,
                chores=[*chores_of_every_service(settings), *assembly.chores],
            )
            yield OpenService(participant, transactions, assembly.router)


def chores_of_every_service(settings: ServiceSettings) -> list[Chore]:
    """The maintenance of the tables of `events`."""
    return [
        ClockWatch(),
        PartitionRenewal(),
        DefaultPartitionCleaner(),
        AttemptsCleaner(timedelta(days=settings.attempts_days)),
        InterventionsCleaner(timedelta(days=settings.interventions_days)),
    ]
