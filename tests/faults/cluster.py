"""The system of a run: containers, proxies in front of them, a mail server, and supervised processes."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import asyncpg

from bench.earlier import EarlierVersion
from events.connection import DRIVER_ERRORS
from ops.audit.ledger import Ledger, SimulatedLedger, StripeLedger
from tests.faults.containers import DATABASE, OWNER, Container, containers
from tests.faults.mailbox import Mailbox, mailbox
from tests.faults.previous_version import previous_version
from tests.faults.proxy import Proxy, proxy_to
from tests.faults.replica import ROOT, Replica
from tests.ports import free_port

REPLICAS: Final[Mapping[str, int]] = {"order": 1, "invoice": 1, "billing": 2, "shipment": 1, "email": 2}
"""The number of processes of each service."""
ROLES: Final = ("order", "invoice", "billing", "shipment", "email", "provider", "carrier", "auditor")
START_SECONDS: Final = 180.0
"""Most seconds until every process serves, on a busy machine."""
Provider: TypeAlias = Literal["simulated", "stripe"]


class MigrationFailed(Exception):
    """`orderflow migrate` failed."""


@dataclass
class Cluster:
    """A running system, with everything that faults and checks need."""

    folder: Path
    """For the logs, the history and the report of this run."""
    postgres: Container
    rabbitmq: Container
    database: Proxy
    """Between the services and PostgreSQL."""
    ledger: Proxy
    """Between the simulated payment provider and PostgreSQL, which has its ledger."""
    provider: Proxy
    """Between billing and the Stripe-compatible server, if that is used."""
    payment_provider: Provider
    provider_port: int
    """The port of the Stripe-compatible server."""
    broker: Proxy
    mail: Proxy
    mailbox: Mailbox
    port: int
    """The port of the order service."""
    password: str
    previous: EarlierVersion
    """The code of the previous version, which some replicas run for some time."""
    poison: set[str] = field(default_factory=set)
    """What must end up dead: the service, and the event id or the digest of an undecodable message."""
    poison_unconfirmed: set[str] = field(default_factory=set)
    """Poison that the broker did not confirm: it may or may not have been delivered."""
    newer: set[str] = field(default_factory=set)
    """Events of a newer version, which must stay parked: service and event id."""
    newer_unconfirmed: set[str] = field(default_factory=set)
    """Those that the broker did not confirm."""
    replicas: dict[str, Replica] = field(default_factory=dict)
    _connection: "asyncpg.Connection[Any] | None" = None
    _fetching: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def database_url(self) -> str:
        """PostgreSQL as its owner, without a proxy."""
        return f"postgresql+asyncpg://{OWNER}:{self.password}@127.0.0.1:{self.postgres.port}/{DATABASE}"

    @property
    def broker_url(self) -> str:
        """RabbitMQ, without a proxy."""
        return f"amqp://{OWNER}:{self.password}@127.0.0.1:{self.rabbitmq.port}/"

    @property
    def provider_ledger(self) -> Ledger:
        """The payment provider's own ledger, without a proxy."""
        if self.payment_provider == "stripe":
            return StripeLedger(self.provider_key, f"http://127.0.0.1:{self.provider_port}")
        return SimulatedLedger(self.database_url)

    @property
    def provider_key(self) -> str:
        """The API key of the Stripe-compatible server."""
        return f"sk_test_{self.password}"

    def replicas_of(self, service: str) -> list[Replica]:
        """The replicas of a service."""
        return [replica for replica in self.replicas.values() if replica.service == service]

    def logs_from_now(self) -> "LogTails":
        """The log lines that all processes write from now on."""
        logs = [replica.log for replica in self.replicas.values() if replica.log.exists()]
        return LogTails({log: log.stat().st_size for log in logs})

    async def dump_database(self) -> None:
        """Dumps the database to `database.dump` in the run's folder, for pg_restore."""
        path = f"/tmp/{DATABASE}.dump"
        await self.postgres.execute("pg_dump", "-U", OWNER, "-Fc", "-f", path, DATABASE)
        await self.postgres.copy(path, self.folder / "database.dump")

    def role(self, service: str) -> str:
        """The name of a service's role."""
        return f"{DATABASE}_{service}"

    def add(self, service: str) -> Replica:
        """Adds a replica of a service, not started yet. The first of the order service listens on `port`."""
        number = len(self.replicas_of(service)) + 1
        port = self.port if (service, number) == ("order", 1) else free_port()
        name = f"{service}-{number}"
        self.replicas[name] = Replica(
            name,
            (f"services.{service}.main",),
            self.environment(service, port),
            port,
            self.folder / "logs" / f"{name}.log",
        )
        return self.replicas[name]

    async def connect(self) -> "asyncpg.Connection[Any]":
        """A new connection to the database as its owner, without a proxy.

        It reads committed rows, whatever isolation a fault has set for the services.
        """
        return await asyncpg.connect(
            self.database_url.replace("+asyncpg", ""),
            timeout=5,
            server_settings={"default_transaction_isolation": "read committed"},
        )

    async def fetch(self, query: str, *arguments: object, patience: float = 120.0) -> list[asyncpg.Record]:
        """Runs a query as the database's owner; waits up to `patience` seconds while the database is down."""
        async with self._fetching, asyncio.timeout(patience):
            while True:
                try:
                    if self._connection is None or self._connection.is_closed():
                        self._connection = await self.connect()
                    return await self._connection.fetch(query, *arguments, timeout=60)
                except DRIVER_ERRORS as error:
                    state = getattr(error, "sqlstate", None)
                    if state and not state.startswith(("08", "53", "57")):
                        raise
                if self._connection:
                    self._connection.terminate()
                    self._connection = None
                await asyncio.sleep(0.2)

    def role_url(self, service: str, proxy: Proxy) -> str:
        """PostgreSQL as a service's role, through a proxy."""
        return proxy.through(
            f"postgresql+asyncpg://{DATABASE}_{service}:{self.password}@127.0.0.1:{self.postgres.port}/{DATABASE}"
        )

    def environment(self, service: str, port: int) -> dict[str, str]:
        """The environment of a process of this service, as in docker-compose.yml."""
        inherited = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
        return inherited | {
            "DATABASE_URL": self.role_url(service, self.database),
            "BROKER_URL": self.broker.through(self.broker_url),
            "PORT": str(port),
            "PAYMENT_PROVIDER": self.payment_provider,
            "STRIPE_API_KEY": self.provider_key,
            "STRIPE_BASE_URL": f"http://127.0.0.1:{self.provider.port}",
            "PROVIDER_DATABASE_URL": self.role_url("provider", self.ledger),
            "CARRIER_DATABASE_URL": self.role_url("carrier", self.database),
            "SMTP_URL": self.mail.through(f"smtp://127.0.0.1:{self.mailbox.port}"),
            "MAIL_RETRY_SECONDS": "6",  # a fault lasts 5 s: alone it leaves at most two unknown outcomes
        }


@dataclass(frozen=True)
class LogTails:
    """The lines that are added to log files from given offsets on."""

    _offsets: Mapping[Path, int]

    def lines_with(self, text: str) -> list[str]:
        """The lines so far that contain this text."""
        lines = []
        for log, begin in self._offsets.items():
            with log.open("rb") as file:
                file.seek(begin)
                lines += [line for line in file.read().decode(errors="replace").splitlines() if text in line]
        return lines


@asynccontextmanager
async def cluster(
    folder: Path, *, provider: Provider = "simulated", replicas: Mapping[str, int] = REPLICAS
) -> AsyncIterator[Cluster]:
    """Starts a fresh system and removes it at the end; its logs stay in `folder`.

    On entry every process serves. Raises NoEarlierVersion, NoDocker, MigrationFailed or NotServing.
    """
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    password = f"canary-{secrets.token_hex(8)}"
    async with AsyncExitStack() as stack:
        previous = stack.enter_context(previous_version())
        postgres, rabbitmq = await stack.enter_async_context(containers(password))
        provider_port = free_port()
        box = await stack.enter_async_context(mailbox())
        system = Cluster(
            folder,
            postgres,
            rabbitmq,
            database=await stack.enter_async_context(proxy_to(postgres.port)),
            ledger=await stack.enter_async_context(proxy_to(postgres.port)),
            broker=await stack.enter_async_context(proxy_to(rabbitmq.port)),
            mail=await stack.enter_async_context(proxy_to(box.port)),
            mailbox=box,
            provider=await stack.enter_async_context(proxy_to(provider_port)),
            payment_provider=provider,
            provider_port=provider_port,
            port=free_port(),
            password=password,
            previous=previous,
        )
        await _migrate(system, logs / "migrate.log")
        for service, count in replicas.items():
            for _ in range(count):
                system.add(service)
        system.replicas["reconcile-1"] = Replica(
            "reconcile-1",
            ("ops.main", "reconcile"),
            system.environment("auditor", 0),
            None,
            logs / "reconcile-1.log",
        )
        if provider == "stripe":
            system.replicas["stripe-1"] = _stripe(system)
        for replica in system.replicas.values():
            replica.supervise()
        stack.push_async_callback(_stop, system)
        await asyncio.gather(
            *(replica.wait_until_serving(START_SECONDS) for replica in system.replicas.values())
        )
        yield system


def _stripe(system: Cluster) -> Replica:
    """The Stripe-compatible server, which faults can script."""
    environment = system.environment("stripe", system.provider_port)
    return Replica(
        "stripe-1",
        ("sandbox.stripe.__main__", "--scripted", "--search-seconds", "2"),
        {**environment, "LEDGER": str(system.folder / "ledger.sqlite")},
        None,
        system.folder / "logs" / "stripe-1.log",
    )


async def _stop(system: Cluster) -> None:
    await asyncio.gather(*(replica.stop() for replica in system.replicas.values()))
    if system._connection:
        system._connection.terminate()


async def _migrate(system: Cluster, log: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": system.database_url,
        "BROKER_URL": system.broker_url,
        **{f"{role.upper()}_DB_PASSWORD": system.password for role in ROLES},
    }
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops.main", "migrate"), env=environment, cwd=ROOT, stdout=out, stderr=out
        )
    if await process.wait():
        raise MigrationFailed(f"{MigrationFailed.__doc__} See {log}.")
