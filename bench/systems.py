"""The systems that are measured: Orderflow, and the peers. Each is set up, started and counted by itself."""

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
from bench.servers import Place, free_port
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
    """A process of a system that is measured ended, or did not begin to serve."""


@dataclass(frozen=True)
class Tables:
    """Where a system keeps what is counted."""

    orders: str
    timeline: str
    invoices: str
    charges: str
    payments: str
    shipments: str
    mails: str

    def finished(self) -> str:
        """SQL for how many mails were recorded as sent."""
        return f"SELECT count(*) FROM {self.mails} WHERE state = 'sent'"


@dataclass(frozen=True)
class System:
    """A way to build it: the commands and the environment of its processes."""

    name: str
    """As in the report."""
    python: Path
    setup: Sequence[str]
    """The command that makes its tables and its topology; then each service's."""
    services: Mapping[str, Sequence[str]]
    environment: Callable[[Place, str], Mapping[str, str]]
    """Of a service in a place; of the setup when there is no service."""
    tables: Tables
    tuning: Mapping[str, object]
    outboxes: Sequence[str] = ()
    """The schemas whose outboxes tell how many events a message carried."""
    folder: Path = ROOT
    """Where its code is: the working directory of its processes."""

    async def set_up(self, place: Place, logs: Path) -> None:
        """Makes its tables and its topology. Raises DidNotStart."""
        log = logs / f"{self.name}-setup.log"
        process = await _start(self, self.setup, self.environment(place, ""), log)
        if await process.wait():
            raise DidNotStart(f"{self.name} can't be set up: see {log}.")


def orderflow(version: EarlierVersion | None = None, /, **settings: str) -> System:
    """The five services as they run in production, with further settings; of an earlier commit, if given.

    An earlier commit is started and counted as this checkout is: it needs the same services, settings and
    tables.
    """
    code = {"PYTHONPATH": version.python_path} if version else {}

    def environment(place: Place, service: str) -> dict[str, str]:
        passwords = passwords_from_environment()
        owner = place.database_url.replace("postgresql://", "postgresql+asyncpg://")
        return {
            "DATABASE_URL": url_for(owner, service, passwords[service]) if service else owner,
            "PROVIDER_DATABASE_URL": url_for(owner, "provider", passwords["provider"]),
            "CARRIER_DATABASE_URL": url_for(owner, "carrier", passwords["carrier"]),
            "BROKER_URL": place.broker_url,
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
        tuning={"settings": "as they come"} | settings,
        outboxes=("order", "invoice", "billing", "shipment"),
        folder=version.folder if version else ROOT,
    )


def peer(package: str, name: str) -> System:
    """One of `bench/peers`, in an environment of their own."""
    module = f"bench.peers.{package}"

    def environment(place: Place, _: str) -> dict[str, str]:
        return {"DATABASE_URL": place.database_url, "BROKER_URL": place.broker_url}

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
"""By the names that `--only` takes: the usual tools, and the usual tools with the same guarantees."""


def make_environment_of_peers() -> None:
    """Makes sure that the peers' tools are installed. Raises DidNotStart."""
    made = subprocess.run(["sh", "deploy/venv.sh", PEERS_LOCK, PEERS_VENV], cwd=ROOT, check=False)
    if made.returncode:
        raise DidNotStart(f"The peers' tools can't be installed: see {PEERS_LOCK}.")


@dataclass
class Running:
    """A system whose processes run."""

    system: System
    port: int
    """Where it takes orders."""
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    """By service, and number where there are several."""

    def usage(self) -> dict[str, Usage]:
        """What each of its processes has used."""
        return {name: meters.of_process(process.pid) for name, process in self.processes.items()}

    def check(self) -> None:
        """Raises DidNotStart when a process has ended."""
        for name, process in self.processes.items():
            if process.returncode is not None:
                raise DidNotStart(f"{self.system.name}: {name} ended with status {process.returncode}.")

    async def stop(self) -> None:
        """Ends all processes, as an operator would."""
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
    system: System, place: Place, logs: Path, *, without: Sequence[str] = (), replicas: int = 1
) -> AsyncIterator[Running]:
    """The system's processes run, and take orders, while the context is open. Raises DidNotStart."""
    alive = Running(system, free_port())
    try:
        for service in system.services:
            for number in range(1, replicas + 1):
                if service not in without:
                    await start(alive, place, logs, service, number)
        async with asyncio.timeout(START_SECONDS):
            while not await load.answers_healthy(alive.port):
                alive.check()
                await asyncio.sleep(0.1)
        yield alive
    except TimeoutError as late:
        raise DidNotStart(f"{system.name} does not serve.") from late
    finally:
        await alive.stop()


async def start(alive: Running, place: Place, logs: Path, service: str, number: int = 1) -> None:
    """Starts a process of a service. The order's first takes the orders."""
    system = alive.system
    takes_orders = (service, number) == ("order", 1)
    environment = {
        **system.environment(place, service),
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
