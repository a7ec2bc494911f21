"""The benchmark's own PostgreSQL and RabbitMQ: containers if Docker answers, else programs on this machine.

Both run fully durable: `fsync` and `synchronous_commit` are on.
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
    """A server can't be started: Docker does not answer, and the program is not installed."""


@dataclass(frozen=True)
class Workspace:
    """A database and a virtual host of RabbitMQ that one system has to itself."""

    database_url: str
    """`postgresql://…`, with the account that owns the database."""
    broker_url: str


@dataclass(frozen=True)
class Servers:
    """Both servers, with meters of their CPU and memory."""

    postgres_url: str
    """The address of the owner's database."""
    broker_url: str
    """The address, without a virtual host."""
    postgres: Meter
    rabbitmq: Meter
    rabbitmqctl: Callable[[Sequence[str]], None]
    origin: str
    """Whether they are containers or programs, for the report."""

    @asynccontextmanager
    async def workspace(self) -> AsyncIterator[Workspace]:
        """Creates a workspace, and drops it at the end of the block."""
        name = f"bench_{secrets.token_hex(4)}"
        await self._execute(f"CREATE DATABASE {name}")
        await asyncio.to_thread(self.rabbitmqctl, ["add_vhost", name])
        user = urlsplit(self.broker_url).username or "guest"
        await asyncio.to_thread(self.rabbitmqctl, ["set_permissions", "-p", name, user, ".*", ".*", ".*"])
        try:
            database_url = urlunsplit(urlsplit(self.postgres_url)._replace(path=f"/{name}"))
            yield Workspace(database_url, f"{self.broker_url}/{name}")
        finally:
            await asyncio.to_thread(self.rabbitmqctl, ["delete_vhost", name])
            await self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.postgres_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@asynccontextmanager
async def servers() -> AsyncIterator[Servers]:
    """Starts both servers, and removes them at the end of the block. Raises NoServer."""
    in_containers = await asyncio.to_thread(_docker_answers)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orderflow-bench-")))
        folder.chmod(0o755)  # run by root, each server uses an account of its own
        postgres = _postgres_container() if in_containers else _postgres_program(folder)
        postgres_url, postgres_meter = await stack.enter_async_context(postgres)
        rabbitmq = _rabbitmq_container() if in_containers else _rabbitmq_program(folder)
        broker_url, rabbitmq_meter, rabbitmqctl = await stack.enter_async_context(rabbitmq)
        origin = "containers" if in_containers else "programs on this machine"
        yield Servers(postgres_url, broker_url, postgres_meter, rabbitmq_meter, rabbitmqctl, origin)


def _docker_answers() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    return not subprocess.run([docker, "info"], capture_output=True, check=False).returncode


# Containers. Clients use their own addresses, because a mapped port costs CPU that no meter sees.


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
    """Starts the container and yields its address. Removes it at the end, also after an interrupted start."""
    testcontainers_config.ryuk_disabled = True  # this block removes the container; Ryuk is one more image
    start = asyncio.ensure_future(asyncio.to_thread(container.start))
    try:
        await asyncio.shield(start)  # the thread continues when its task is cancelled
        wrapped = container.get_wrapped_container()
        wrapped.reload()
        networks = wrapped.attrs["NetworkSettings"]["Networks"].values()
        yield next(network["IPAddress"] for network in networks)
    finally:
        await asyncio.wait([start])
        await asyncio.to_thread(container.stop)


# Programs on this machine


@asynccontextmanager
async def _postgres_program(folder: Path) -> AsyncIterator[tuple[str, Meter]]:
    async with embedded_postgres(folder / "postgres") as url:
        data = folder / "postgres" / "data"
        pid = int((data / "postmaster.pid").read_text().split()[0])
        yield url.replace("+asyncpg", ""), partial(meters.of_process, pid)


@asynccontextmanager
async def _rabbitmq_program(
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
    configuration = folder / "rabbitmq.conf"  # without it the server reads the machine's own configuration
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
        done = subprocess.run(
            [tool, "--quiet", *arguments], env=environment, capture_output=True, check=False
        )
        if done.returncode:
            raise NoServer((done.stdout + done.stderr).decode())

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
    """Returns a port of this machine that is free at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
