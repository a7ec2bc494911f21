"""PostgreSQL and RabbitMQ of the benchmark's own: in containers if Docker answers, else programs found.

Both as they come out of the box, durable in full: `fsync` and `synchronous_commit` are on.
"""

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from bench import meters
from bench.meters import Meter
from ops.postgres import embedded_postgres

POSTGRES_IMAGE: Final = "postgres:17"
RABBITMQ_IMAGE: Final = "rabbitmq:4-management"
START_SECONDS: Final = 90.0
_OWNER: Final = "orderflow"


class NoServer(Exception):
    """A server can't be had: neither does Docker answer, nor is the program there."""


@dataclass(frozen=True)
class Place:
    """Where one system lives: a database and a virtual host that nobody else uses."""

    database_url: str
    """`postgresql://…`, as the owner of everything."""
    broker_url: str


@dataclass(frozen=True)
class Servers:
    """Both servers, and what they have used."""

    postgres_url: str
    """Of the owner's database."""
    broker_url: str
    """Without a virtual host."""
    postgres: Meter
    rabbitmq: Meter
    rabbitmqctl: Callable[[Sequence[str]], None]
    said: str
    """Which they are, for the report."""

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """A fresh place, dropped at the end."""
        name = f"bench_{secrets.token_hex(4)}"
        await self._ask_postgres(f"CREATE DATABASE {name}")
        await asyncio.to_thread(self.rabbitmqctl, ["add_vhost", name])
        user = urlsplit(self.broker_url).username or "guest"
        await asyncio.to_thread(self.rabbitmqctl, ["set_permissions", "-p", name, user, ".*", ".*", ".*"])
        try:
            database_url = urlunsplit(urlsplit(self.postgres_url)._replace(path=f"/{name}"))
            yield Place(database_url, f"{self.broker_url}/{name}")
        finally:
            await asyncio.to_thread(self.rabbitmqctl, ["delete_vhost", name])
            await self._ask_postgres(f"DROP DATABASE {name} WITH (FORCE)")

    async def _ask_postgres(self, statement: str) -> None:
        connection = await asyncpg.connect(self.postgres_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@asynccontextmanager
async def servers() -> AsyncIterator[Servers]:
    """Both, fresh, removed at the end. Raises NoServer."""
    in_containers = await asyncio.to_thread(_docker_answers)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orderflow-bench-")))
        folder.chmod(0o755)  # as root, each server has an account of its own
        postgres = _postgres_container() if in_containers else _postgres_found(folder)
        postgres_url, postgres_meter = await stack.enter_async_context(postgres)
        rabbitmq = _rabbitmq_container() if in_containers else _rabbitmq_found(folder)
        broker_url, rabbitmq_meter, rabbitmqctl = await stack.enter_async_context(rabbitmq)
        said = "containers" if in_containers else "programs found on this machine"
        yield Servers(postgres_url, broker_url, postgres_meter, rabbitmq_meter, rabbitmqctl, said)


def _docker_answers() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    return not subprocess.run([docker, "info"], capture_output=True, check=False).returncode


# In containers. They are reached by their own addresses: a mapped port costs CPU that nobody accounts for.


@asynccontextmanager
async def _postgres_container() -> AsyncIterator[tuple[str, Meter]]:
    password = secrets.token_hex(8)
    container = DockerContainer(POSTGRES_IMAGE)
    container.with_envs(POSTGRES_USER=_OWNER, POSTGRES_PASSWORD=password)
    container.with_kwargs(shm_size="256m")
    container.with_command("postgres -c max_connections=300 -c shared_buffers=256MB")
    container.waiting_for(LogMessageWaitStrategy("database system is ready to accept connections", times=2))
    async with _started(container) as address:
        url = f"postgresql://{_OWNER}:{password}@{address}:5432/{_OWNER}"
        yield url, partial(meters.of_container, container)


@asynccontextmanager
async def _rabbitmq_container() -> AsyncIterator[tuple[str, Meter, Callable[[Sequence[str]], None]]]:
    password = secrets.token_hex(8)
    container = DockerContainer(RABBITMQ_IMAGE)
    container.with_envs(RABBITMQ_DEFAULT_USER=_OWNER, RABBITMQ_DEFAULT_PASS=password)
    container.waiting_for(LogMessageWaitStrategy("Server startup complete"))

    def control(arguments: Sequence[str]) -> None:
        result = container.exec(["rabbitmqctl", "--quiet", *arguments])
        if result.exit_code:
            raise NoServer(result.output.decode())

    async with _started(container) as address:
        url = f"amqp://{_OWNER}:{password}@{address}:5672"
        yield url, partial(meters.of_container, container), control


@asynccontextmanager
async def _started(container: DockerContainer) -> AsyncIterator[str]:
    """Its address. Removed at the end, also when the start was interrupted."""
    testcontainers_config.ryuk_disabled = True  # it is removed here, and Ryuk is one more image
    start = asyncio.ensure_future(asyncio.to_thread(container.start))
    try:
        await asyncio.shield(start)  # a thread goes on when its task is cancelled
        wrapped = container.get_wrapped_container()
        wrapped.reload()
        networks = wrapped.attrs["NetworkSettings"]["Networks"].values()
        yield next(network["IPAddress"] for network in networks)
    finally:
        await asyncio.wait([start])
        await asyncio.to_thread(container.stop)


# Programs found on this machine


@asynccontextmanager
async def _postgres_found(folder: Path) -> AsyncIterator[tuple[str, Meter]]:
    async with embedded_postgres(folder / "postgres") as url:
        data = folder / "postgres" / "data"
        pid = int((data / "postmaster.pid").read_text().split()[0])
        yield url.replace("+asyncpg", ""), partial(meters.of_process, pid)


@asynccontextmanager
async def _rabbitmq_found(
    folder: Path,
) -> AsyncIterator[tuple[str, Meter, Callable[[Sequence[str]], None]]]:
    server, tool = shutil.which("rabbitmq-server"), shutil.which("rabbitmqctl")
    if not server or not tool:
        raise NoServer(f"{NoServer.__doc__} (rabbitmq-server)")
    node = f"bench-{secrets.token_hex(3)}@localhost"
    home = folder / "rabbitmq"
    home.mkdir()
    if os.geteuid() == 0:
        shutil.chown(home, "rabbitmq", "rabbitmq")
    port = free_port()
    configuration = folder / "rabbitmq.conf"  # else it reads the one of the machine's own RabbitMQ
    configuration.write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n")
    environment = os.environ | {
        "RABBITMQ_NODENAME": node,
        "RABBITMQ_CONFIG_FILE": str(configuration),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(home / "data"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_PID_FILE": str(home / "pid"),
    }

    def control(arguments: Sequence[str]) -> None:
        said = subprocess.run(
            [tool, "--quiet", *arguments], env=environment, capture_output=True, check=False
        )
        if said.returncode:
            raise NoServer((said.stdout + said.stderr).decode())

    process = await asyncio.create_subprocess_exec(
        server,
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await asyncio.to_thread(control, ["wait", "--timeout", str(int(START_SECONDS)), str(home / "pid")])
        pid = int((home / "pid").read_text())
        yield f"amqp://guest:guest@127.0.0.1:{port}", partial(meters.of_process, pid), control
    finally:
        with_children = psutil.Process(process.pid).children(recursive=True)
        for part in (*with_children, psutil.Process(process.pid)):
            part.terminate()
        await process.wait()


def free_port() -> int:
    """A port of this machine that nobody has at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
