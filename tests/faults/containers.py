"""PostgreSQL and RabbitMQ as a run's own containers, each on a port that it keeps when it comes back."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.ports import free_port

OWNER: Final = "orderflow"
DATABASE: Final = "orderflow"


class NoDocker(Exception):
    """Docker does not answer: the runs need it for a PostgreSQL and a RabbitMQ that can be broken."""

    def __init__(self, said: str = "") -> None:
        super().__init__(f"{self.__doc__} {said}".rstrip())


class DockerFailed(Exception):
    """Docker did not do what it was asked."""


async def docker(*arguments: str, stdin: bytes | None = None) -> str:
    """What `docker` says. Raises NoDocker when there is none, DockerFailed when it refuses."""
    pipe = asyncio.subprocess.PIPE
    given = pipe if stdin else asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            "docker",
            *arguments,
            stdin=given,
            stdout=pipe,
            stderr=pipe,
        )
    except FileNotFoundError:
        raise NoDocker from None
    said, complaint = await process.communicate(stdin)
    if process.returncode:
        raise DockerFailed(f"docker {' '.join(arguments[:3])}: {complaint.decode().strip()}")
    return said.decode().strip()


@dataclass(frozen=True)
class Container:
    """One container; its data outlives its ends."""

    name: str
    port: int

    async def execute(self, *command: str) -> str:
        """What a command says inside of it. Raises DockerFailed."""
        return await docker("exec", self.name, *command)

    async def copy(self, there: str, here: Path) -> None:
        """Copies a file out of it."""
        await docker("cp", f"{self.name}:{there}", str(here))

    async def kill(self) -> None:
        """SIGKILL to everything in it."""
        await docker("kill", self.name)

    async def stop(self) -> None:
        """Stops it in order."""
        await docker("stop", "--time", "30", self.name)

    async def start(self) -> None:
        """Starts it on the data that it had."""
        await docker("start", self.name)

    async def started_at(self) -> str:
        """When it was started last: proof that it was started again."""
        return await docker("inspect", "--format", "{{.State.StartedAt}}", self.name)


@asynccontextmanager
async def containers(password: str) -> AsyncIterator[tuple[Container, Container]]:
    """A fresh PostgreSQL (fsync on, as shipped) and a fresh RabbitMQ, removed with their data at the end.

    Both have the user `orderflow` with this password. They need not answer yet.
    """
    try:
        await docker("info", "--format", "{{.ServerVersion}}")
    except DockerFailed as failure:
        raise NoDocker(str(failure)) from failure
    postgres = Container(f"orderflow-faults-{os.getpid()}-postgres", free_port())
    rabbitmq = Container(f"orderflow-faults-{os.getpid()}-rabbitmq", free_port())
    async with AsyncExitStack() as stack:
        for container in (postgres, rabbitmq):
            stack.push_async_callback(_removed, container)
        await docker(
            *_run(postgres, 5432, memory="2g", shm="256m"),
            *_environment(POSTGRES_USER=OWNER, POSTGRES_PASSWORD=password, POSTGRES_DB=DATABASE),
            os.environ.get("POSTGRES_IMAGE", "postgres:17"),
            *(
                "postgres",
                "-c",
                "max_connections=200",
                "-c",
                "shared_buffers=256MB",
                "-c",
                "max_wal_size=2GB",
            ),
        )
        await docker(
            *_run(rabbitmq, 5672, memory="1g"),
            *_environment(
                RABBITMQ_DEFAULT_USER=OWNER,
                RABBITMQ_DEFAULT_PASS=password,
                RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-rabbit total_memory_available_override_value 1073741824"
                " -rabbit disk_free_limit 536870912 -ra wal_max_size_bytes 67108864",
            ),
            os.environ.get("RABBITMQ_IMAGE", "rabbitmq:4-management"),
        )
        yield postgres, rabbitmq


def _run(container: Container, port: int, *, memory: str, shm: str = "64m") -> list[str]:
    """`docker run` up to the image. Its host name is fixed: RabbitMQ's data belongs to a node's name."""
    return [
        *("run", "--detach", "--name", container.name, "--hostname", container.name.rsplit("-", 1)[-1]),
        *("--publish", f"127.0.0.1:{container.port}:{port}", "--memory", memory, "--shm-size", shm),
    ]


def _environment(**variables: str) -> list[str]:
    return [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]


def _options(**options: str) -> list[str]:
    return [part for name, value in options.items() for part in ("-c", f"{name}={value}")]


async def _removed(container: Container) -> None:
    await docker("rm", "--force", "--volumes", container.name)
