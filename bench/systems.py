"""The measured systems: Orderflow and its peers, each with its own processes and tables."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Final

from bench import load, meters
from bench.earlier import EarlierVersion
from bench.meters import Usage
from bench.servers import Workspace, free_port
from ops.migrate import passwords_from_environment, url_for
from ops.services import SERVICES

ROOT: Final = Path(__file__).resolve().parents[1]
PEERS_LOCK: Final = Path("bench/peers/requirements.lock")
PEERS_VENV: Final = Path("bench/peers/.venv")
OURS: Final = "Orderflow"
FASTSTREAM: Final = "FastStream + SQLAlchemy"
CELERY: Final = "Celery + SQLAlchemy"
SAME_GUARANTEES: Final = "aio-pika + asyncpg, same guarantees"
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 40.0


class DidNotStart(Exception):
    """A process of a measured system ended, or did not begin to serve."""


@dataclass(frozen=True)
class Tables:
    """The tables of a system that the benchmark counts rows in."""

    orders: str
    timeline: str
    invoices: str
    charges: str
    payments: str
    shipments: str
    mails: str


@dataclass(frozen=True)
class System:
    """A measured system: the commands, environment and tables of its processes."""

    name: str
    """Its name in the report."""
    python: Path
    setup: Sequence[str]
    """The command that creates its tables and queues."""
    services: Mapping[str, Sequence[str]]
    """The command of each service."""
    environment: Callable[[Workspace, str], Mapping[str, str]]
    """The environment of a service in a workspace, and of the setup if the service is empty."""
    tables: Tables
    tuning: Mapping[str, object]
    outboxes: Sequence[str] = ()
    """The schemas with outboxes, from which the events per message are counted."""
    folder: Path = ROOT
    """The working directory of its processes, with its code."""

    async def set_up(self, workspace: Workspace, logs: Path) -> None:
        """Creates its tables and queues. Raises DidNotStart."""
        log = logs / f"{self.name}-setup.log"
        process = await _start(self, self.setup, self.environment(workspace, ""), log)
        if await process.wait():
            raise DidNotStart(f"{self.name} can't be set up: see {log}.")


def orderflow(version: EarlierVersion | None = None, /, **settings: str) -> System:
    """Orderflow's five services as in production, of this checkout or an earlier commit, with extra settings.

    An earlier commit needs the same services, settings and tables.
    """
    code = {"PYTHONPATH": version.python_path} if version else {}

    def environment(workspace: Workspace, service: str) -> dict[str, str]:
        passwords = passwords_from_environment()
        owner = workspace.database_url.replace("postgresql://", "postgresql+asyncpg://")
        return {
            "DATABASE_URL": url_for(owner, service, passwords[service]) if service else owner,
            "PROVIDER_DATABASE_URL": url_for(owner, "provider", passwords["provider"]),
            "CARRIER_DATABASE_URL": url_for(owner, "carrier", passwords["carrier"]),
            "BROKER_URL": workspace.broker_url,
            "MAIL_RECORD_ONLY": "true",
            "LOG_LEVEL": "WARNING",
            **code,
            **settings,
        }

    return System(
        name=f"{OURS} at {version.commit}" if version else OURS,
        python=Path(sys.executable),
        setup=("-m", "ops.main", "migrate"),
        services={service: ("-m", f"services.{service}.main") for service in SERVICES},
        environment=environment,
        tables=Tables(
            '"order".orders',
            '"order".timeline',
            "invoice.invoices",
            "provider.charges",
            "billing.payments",
            "shipment.shipments",
            "email.mails",
        ),
        tuning={"settings": "defaults"} | settings,
        outboxes=("order", "invoice", "billing", "shipment"),
        folder=version.folder if version else ROOT,
    )


def peer(package: str, name: str) -> System:
    """One of `bench/peers`, run in the peers' own Python environment."""
    module = f"bench.peers.{package}"

    def environment(workspace: Workspace, _: str) -> dict[str, str]:
        return {"DATABASE_URL": workspace.database_url, "BROKER_URL": workspace.broker_url}

    return System(
        name=name,
        python=ROOT / PEERS_VENV / "bin" / "python",
        setup=("-m", module, "setup"),
        services={service: ("-m", module, service) for service in SERVICES},
        environment=environment,
        tables=Tables("orders", "timeline", "invoices", "charges", "payments", "shipments", "mails"),
        tuning=import_module(module).TUNING,
    )


PEERS: Final[Mapping[str, Callable[[], System]]] = {
    "faststream": partial(peer, "faststream_sqlalchemy", FASTSTREAM),
    "celery": partial(peer, "celery_sqlalchemy", CELERY),
    "same-guarantees": partial(peer, "aio_pika_asyncpg", SAME_GUARANTEES),
}
"""The peers by their names for `--only`."""


def make_environment_of_peers() -> None:
    """Installs the peers' dependencies, unless they are installed. Raises DidNotStart."""
    made = subprocess.run(["sh", "deploy/venv.sh", PEERS_LOCK, PEERS_VENV], cwd=ROOT, check=False)
    if made.returncode:
        raise DidNotStart(f"The dependencies in {PEERS_LOCK} can't be installed. The reason is above.")


@dataclass
class Running:
    """A running system and its processes."""

    system: System
    port: int
    """The port that takes orders."""
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    """By service, with the number if there are several."""

    def usage(self) -> dict[str, Usage]:
        """Returns the CPU and memory that each process has used."""
        return {name: meters.of_process(process.pid) for name, process in self.processes.items()}

    def check(self) -> None:
        """Raises DidNotStart if a process has ended."""
        for name, process in self.processes.items():
            if process.returncode is not None:
                raise DidNotStart(f"{self.system.name}: {name} ended with status {process.returncode}.")

    async def stop(self) -> None:
        """Stops all processes with SIGTERM, and kills those that do not end in STOP_SECONDS."""
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


@asynccontextmanager
async def running(
    system: System, workspace: Workspace, logs: Path, *, without: Sequence[str] = (), replicas: int = 1
) -> AsyncIterator[Running]:
    """Runs the system inside the block, and waits until it takes orders. Raises DidNotStart."""
    alive = Running(system, free_port())
    try:
        for service in system.services:
            for number in range(1, replicas + 1):
                if service not in without:
                    await start(alive, workspace, logs, service, number)
        async with asyncio.timeout(START_SECONDS):
            while not await load.answers_healthy(alive.port):
                alive.check()
                await asyncio.sleep(0.1)
        yield alive
    except TimeoutError as late:
        raise DidNotStart(f"{system.name} does not serve.") from late
    finally:
        await alive.stop()


async def start(alive: Running, workspace: Workspace, logs: Path, service: str, number: int = 1) -> None:
    """Starts a process of a service. The order service's first process takes the orders."""
    system = alive.system
    takes_orders = (service, number) == ("order", 1)
    environment = {
        **system.environment(workspace, service),
        "PORT": str(alive.port if takes_orders else free_port()),
    }
    name = service if number == 1 else f"{service}-{number}"
    log = logs / f"{system.name}-{name}.log"
    alive.processes[name] = await _start(system, system.services[service], environment, log)


async def _start(
    system: System, arguments: Sequence[str], environment: Mapping[str, str], log: Path
) -> asyncio.subprocess.Process:
    inherited = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
    with log.open("ab") as out:
        return await asyncio.create_subprocess_exec(
            system.python,
            *arguments,
            env=inherited | dict(environment),
            cwd=system.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
