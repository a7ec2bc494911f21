"""Servers for tests: in containers if Docker answers, else the embedded PostgreSQL or a local RabbitMQ."""

import asyncio
import gc
import os
import re
import socket
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import aiormq
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from events.contracts import TYPES
from events.errors import BrokerUnavailable
from events.rabbitmq import Names, declare
from ops.postgres import embedded_postgres
from tests.ports import free_port

REQUIRE_DOCKER = os.environ.get("REQUIRE_DOCKER") == "1"
"""No test may be skipped."""

C = TypeVar("C", bound=DockerContainer)


class NoContainer(Exception):
    """Docker does not answer, or can't pull or start the image."""


@dataclass(frozen=True)
class Broker:
    """A RabbitMQ for tests: a container of this run, or a local one that others use too."""

    url: str
    container: DockerContainer | None = None

    def control(self, *arguments: str) -> str:
        """The output of `rabbitmqctl` in the broker's container."""
        assert self.container, "only a broker of our own is controlled"
        result = self.container.exec(["rabbitmqctl", "--quiet", *arguments])
        said = result.output.decode()
        assert result.exit_code == 0, f"rabbitmqctl {' '.join(arguments)}: {said}"
        return str(said)

    def restart(self) -> None:
        """Stops the broker cleanly and starts it again on the same data.

        Not by SIGKILL: RabbitMQ writes new quorum queues to its disk only half a second later, and a test's
        queue may be younger than that.
        """
        assert self.container, "only a broker of our own is restarted"
        self.container.get_wrapped_container().restart(timeout=30)

    def make_sound(self) -> None:
        """Restarts this run's broker if it can't declare queues any more.

        RabbitMQ 4.0 sometimes gets into that state when queues come and go as fast as in these tests: its
        supervisor of at-least-once dead-lettering has given up. Then every declaration of a queue that asks
        for it, as ours do, is answered with INTERNAL_ERROR until a restart.
        """

        async def makes_queues() -> None:
            prefix = f"sound-{uuid.uuid4()}."  # a new name: declaring an existing queue makes none
            await declare(self.url, {"sound": []}, prefix=prefix)
            await self.remove(prefix, "sound")

        async def is_up() -> None:
            async with asyncio.timeout(60):
                while True:
                    try:
                        return await makes_queues()
                    except (BrokerUnavailable, OSError, aiormq.AMQPError):
                        await asyncio.sleep(0.5)

        with ThreadPoolExecutor(1) as thread:  # the caller's loop may be running
            try:
                thread.submit(asyncio.run, makes_queues()).result(30)
            except (BrokerUnavailable, TimeoutError):
                self.restart()
                thread.submit(asyncio.run, is_up()).result()

    async def remove(self, prefix: str, *services: str) -> None:
        """Deletes the queues of these services, and the exchanges, whose names begin with the prefix."""
        names = Names(prefix)
        async with aiormq.connect(self.url) as connection:
            channel = await connection.channel()
            for service in services:
                await channel.queue_delete(names.queue(service))
                await channel.queue_delete(names.dead(service))
            for event_type in TYPES:
                await channel.exchange_delete(names.exchange(event_type))


@contextmanager
def postgres_in_container() -> Iterator[str]:
    """URL of a fresh PostgreSQL, as its owner. Raises NoContainer."""

    def make() -> PostgresContainer:
        container = PostgresContainer("postgres:17", driver="asyncpg")
        container.with_tmpfs_mount("/var/lib/postgresql/data")  # a test's database is made six times as fast
        container.with_kwargs(mem_limit="2g", shm_size="128m")
        container.with_command("postgres -c fsync=off -c max_connections=300 -c max_wal_size=256MB")
        return container

    with _started(make) as container:
        yield str(container.get_connection_url())


@contextmanager
def rabbitmq_in_container() -> Iterator[Broker]:
    """A fresh RabbitMQ 4. Raises NoContainer."""

    def make() -> DockerContainer:
        container = DockerContainer("rabbitmq:4-management")
        container.with_bind_ports(5672, free_port())  # the same after a restart
        container.with_kwargs(mem_limit="768m")
        container.with_envs(
            RABBITMQ_DEFAULT_USER="orderflow",
            RABBITMQ_DEFAULT_PASS="orderflow",
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-ra wal_max_size_bytes 67108864",
        )
        return container.waiting_for(LogMessageWaitStrategy("Server startup complete"))

    with _started(make) as container:
        host, port = container.get_container_host_ip(), container.get_exposed_port(5672)
        yield Broker(f"amqp://orderflow:orderflow@{host}:{port}/", container)


@contextmanager
def nginx_in_container(configuration: str) -> Iterator[None]:
    """An nginx with this as its only site, on this machine's own network. Raises NoContainer.

    Its error log goes to stderr at the end, for the report of a failed test.
    """

    def make() -> DockerContainer:
        container = DockerContainer(os.environ.get("NGINX_IMAGE", "nginx:stable"))
        container.with_kwargs(mem_limit="256m", network_mode="host")
        container.with_env("SITE", configuration)
        start = 'printf %s "$SITE" > /etc/nginx/conf.d/default.conf && exec nginx -g "daemon off;"'
        return container.with_command(["sh", "-c", start])

    with _started(make) as container:
        try:
            yield
        finally:
            _, errors = container.get_logs()
            sys.stderr.write(errors.decode(errors="replace"))


@contextmanager
def postgres_embedded(folder: Path) -> Iterator[str]:
    """URL of the embedded PostgreSQL on a folder, as its owner. It runs in a thread and loop of its own."""
    started: list[str] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    ready = threading.Event()

    async def serve() -> None:
        async with embedded_postgres(folder) as url:
            started.append(url)
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            loop.close()
            ready.set()

    thread = threading.Thread(target=run, name="embedded PostgreSQL")
    thread.start()
    ready.wait()
    assert started, "the embedded PostgreSQL did not start"
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@cache
def local_rabbitmq() -> str:
    """The version of the RabbitMQ on localhost:5672, or an empty string if none answers."""
    try:
        with socket.create_connection(("127.0.0.1", 5672), timeout=1) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            greeting = connection.recv(4096)  # Connection.Start, with the server's properties
    except OSError:
        return ""
    found = re.search(rb"RabbitMQ.*versionS\x00\x00\x00.([0-9.]+)", greeting, re.DOTALL)
    return found[1].decode() if found else ""


@contextmanager
def _started(make: Callable[[], C]) -> Iterator[C]:
    testcontainers_config.ryuk_disabled = True  # containers are removed here, and Ryuk is one more image
    container: C | None = None
    failure = ""
    try:
        container = make()
        container.start()
    except Exception as error:  # noqa: BLE001  # for whatever reason, there is no container
        if container is not None and container._container is not None:
            container.stop()
        failure = str(error)
    if failure or container is None:
        container = None
        _collect_docker_sockets()
        raise NoContainer(f"{NoContainer.__doc__} ({failure})")
    try:
        yield container
    finally:
        container.stop()


def _collect_docker_sockets() -> None:
    """Collects sockets that Docker's SDK left open when refused. Collected later they would fail a test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
