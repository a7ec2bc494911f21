"""A service: what it consists of, and how it is put together on a database and a bus."""

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
    """The parts of a service that are its own: who does the work it leaves behind, chores, and its API."""

    runners: Runners = field(default_factory=dict)
    chores: Sequence[Chore] = ()
    router: "APIRouter | None" = None


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
class OpenService:
    """A service that is put together and ready to run."""

    participant: Participant
    transactions: Transactions
    router: "APIRouter | None"


@asynccontextmanager
async def open_service(service: Service, settings: ServiceSettings, bus: Bus) -> AsyncIterator[OpenService]:
    """The service on its database and a bus, once its schema is there."""
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
            participant = Participant(
                service.name,
                service.handlers,
                transactions,
                bus,
                assembly.runners,
                chores=[*chores_of_every_service(settings), *assembly.chores],
            )
            yield OpenService(participant, transactions, assembly.router)


def chores_of_every_service(settings: ServiceSettings) -> list[Chore]:
    """The maintenance of the tables that every service has for its part in the events."""
    return [
        ClockWatch(),
        PartitionRenewal(),
        DefaultPartitionCleaner(),
        AttemptsCleaner(timedelta(days=settings.attempts_days)),
        InterventionsCleaner(timedelta(days=settings.interventions_days)),
    ]
