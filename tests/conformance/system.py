"""A small system of services that meet on a bus: each with its own schema and role, and a table `handled`."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from chassis import database
from events.bus import Bus, Message
from events.contracts import AnyEvent, InvoiceCreated, OrderCreated, type_of
from events.memory import ListenerBehind
from events.participant import Participant, Runners
from events.transaction import Transaction
from events.transactions import Transactions
from events.worker import Handlers
from tests.faults.proxy import Proxy, proxy_to
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.conformance.transports import Transport

SWEEP_SECONDS: Final = 0.1
HANDLED: Final = "CREATE TABLE handled (event_id uuid NOT NULL, backend integer NOT NULL)"


async def record(events: Sequence[AnyEvent], tx: Transaction) -> None:
    """Records that the events were handled, and by which connection."""
    await tx.execute(
        "INSERT INTO handled SELECT unnest($1::uuid[]), pg_backend_pid()", [event.id for event in events]
    )


HANDLERS: Final[Mapping[str, Handlers]] = {
    "order": {InvoiceCreated: record},
    "invoice": {OrderCreated: record},
    "email": {OrderCreated: record},
}
BINDINGS: Final = {service: [type_of(event) for event in handlers] for service, handlers in HANDLERS.items()}


@dataclass(frozen=True)
class Started:
    """A participant that runs until it is stopped."""

    participant: Participant
    stop: asyncio.Event
    task: asyncio.Task[None]


class System:
    """The services order, invoice and email; each runs when started."""

    def __init__(self, transport: "Transport", urls: Mapping[str, str]) -> None:
        self.transport = transport
        self.urls = urls
        self.services = tuple(urls)
        self._bus: Bus | None = None
        self._process = AsyncExitStack()
        self._emitting = asyncio.Lock()
        self._participants: dict[str, list[Started]] = {}
        self._transactions: dict[str, Transactions] = {}

    @property
    def bus(self) -> Bus:
        """The bus of this process."""
        assert self._bus
        return self._bus

    @property
    def running(self) -> tuple[str, ...]:
        """The services that were started."""
        return tuple(service for service, running in self._participants.items() for _ in running)

    async def open(self) -> None:
        """Opens the bus and the databases of a new process."""
        self._bus = await self._process.enter_async_context(self.transport.bus())
        for service in self.services:
            self._transactions[service] = await self._connected(service)

    async def close(self) -> None:
        """Stops everything, in order."""
        await self.stop(*self._participants)
        await self._process.aclose()

    async def start(
        self, *services: str, handlers: Handlers | None = None, runners: Runners | None = None
    ) -> list[Participant]:
        """Starts participants, with these handlers in place of the ordinary ones."""
        started = []
        for service in services:
            first = not self._participants.get(service)
            transactions = self._transactions[service] if first else await self._connected(service)
            participant = Participant(
                service,
                handlers or HANDLERS[service],
                transactions,
                self.bus,
                runners,
                sweep_seconds=SWEEP_SECONDS,
            )
            stop = asyncio.Event()
            task = asyncio.create_task(self.transport.run(participant, stop), name=service)
            self._participants.setdefault(service, []).append(Started(participant, stop, task))
            started.append(participant)
        return started

    async def stop(self, *services: str) -> None:
        """Stops participants as SIGTERM does and waits for them. Raises the error that ended one before."""
        for service in services:
            for started in self._participants[service]:
                started.stop.set()
                started.participant.stop()
        for service in services:
            async with asyncio.timeout(30):
                for started in self._participants[service]:
                    await started.task
            self._participants[service] = []

    async def cancel(self, service: str) -> None:
        """Cancels a service's participants."""
        for started in self._participants[service]:
            started.task.cancel()
            with suppress(asyncio.CancelledError):
                await started.task
        self._participants[service] = []
        self._transactions[service] = await self._connected(service)

    async def crash(self) -> None:
        """Replaces the process as after a kill: everything is cancelled, and its claims run out."""
        for service in list(self._participants):
            await self.cancel(service)
        self._participants.clear()
        async with self._emitting:
            await self._process.aclose()
            await self.let_claims_run_out()
            await self.open()

    async def emit(self, *events: AnyEvent, service: str = "order") -> None:
        """Announces events, in one transaction of the service."""
        async with self._emitting, self._transactions[service]() as tx:
            tx.emit(*events)

    def transaction(self, service: str) -> AbstractAsyncContextManager[Transaction]:
        """A transaction of the service."""
        return self._transactions[service]()

    async def publish(self, message: Message) -> None:
        """Publishes the message, again while a service is behind."""
        async with asyncio.timeout(30):
            while True:
                try:
                    return await self.bus.publish(message)
                except ListenerBehind:  # the memory bus: a service does not keep up
                    await asyncio.sleep(SWEEP_SECONDS)

    # Results

    async def query(self, service: str, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """Rows of a service's database, read on the test's own connection."""
        async with self.connection(service) as connection:
            return list(await connection.fetch(statement, *arguments))

    @asynccontextmanager
    async def connection(self, service: str) -> "AsyncIterator[asyncpg.Connection[Any]]":
        """A connection of the test to a service's database."""
        connection = await asyncpg.connect(self.urls[service].replace("+asyncpg", ""))
        try:
            yield connection
        finally:
            await connection.close()

    async def handled(self, service: str) -> Counter[uuid.UUID]:
        """How often the service has handled each event, by its committed rows."""
        return Counter(row["event_id"] for row in await self.query(service, "SELECT event_id FROM handled"))

    async def handle_all(self, events: Sequence[AnyEvent], *services: str) -> None:
        """Returns when each service has handled each of the events, and fails if one did so twice."""
        expected = Counter(event.id for event in events)
        for service in services:
            await self.until_handled(service, expected)
        await self.outbox_empties("order")
        for service in services:
            assert await self.handled(service) == expected

    async def until_handled(self, service: str, expected: Counter[uuid.UUID]) -> None:
        async def missing() -> int:
            return len(expected - await self.handled(service))

        await eventually(missing, lambda count: not count)

    async def outbox_empties(self, service: str) -> None:
        """Returns when everything that the service has announced is published."""

        async def pending() -> list[asyncpg.Record]:
            return await self.query(service, "SELECT id, last_error FROM outbox WHERE state = 'pending'")

        await eventually(pending, lambda rows: not rows)

    async def parked(self, service: str, state: str) -> list[asyncpg.Record]:
        """The service's parked events in this state."""
        return await self.query(
            service, "SELECT *, claimed_until > now() AS later FROM parked WHERE state = $1", state
        )

    # Failures

    async def let_claims_run_out(self) -> None:
        """Makes every claim run out, as time does after a process died."""
        for service in self.services:
            await self.query(service, "UPDATE outbox SET claimed_until = now() WHERE state = 'pending'")
            await self.query(service, "UPDATE parked SET claimed_until = now() WHERE state = 'retry'")

    async def terminate_backends(self, service: str) -> int:
        """Ends every connection to a service's database; returns how many there were."""
        ended = await self.query(
            service,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()",
        )
        return len(ended)

    @asynccontextmanager
    async def database_behind_proxy(self, service: str) -> AsyncIterator[Proxy]:
        """Makes a service that is not started yet reach its database through a proxy that can break."""
        url = self.urls[service]
        async with proxy_to(url) as proxy:
            self._transactions[service] = await self._connected(service, proxy.through(url))
            yield proxy

    async def _connected(self, service: str, url: str | None = None) -> Transactions:
        connection = database.connect(url or self.urls[service], pool=4, application=f"test {service}")
        return Transactions(await self._process.enter_async_context(connection))
