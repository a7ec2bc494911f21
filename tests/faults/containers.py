"""PostgreSQL and RabbitMQ in containers of the run, on ports that they keep after a restart."""

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
    """Docker does not answer; fault runs need it for PostgreSQL and RabbitMQ."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(f"{self.__doc__} {detail}".rstrip())


class DockerFailed(Exception):
    """A docker command failed."""


async def docker(*arguments: str, stdin: bytes | None = None) -> str:
    """The output of a `docker` command. Raises NoDocker if docker is missing, DockerFailed if it fails."""
    pipe = asyncio.subprocess.PIPE
    input_stream = pipe if stdin else asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            "docker",
            *arguments,
            stdin=input_stream,
            stdout=pipe,
            stderr=pipe,
        )
    except FileNotFoundError:
        raise NoDocker from None
    output, error = await process.communicate(stdin)
    if process.returncode:
        raise DockerFailed(f"docker {' '.join(arguments[:3])}: {error.decode().strip()}")
    return output.decode().strip()


@dataclass(frozen=True)
class Container:
    """A container; it keeps its data when it is stopped or killed."""

    name: str
    port: int

    async def execute(self, *command: str) -> str:
        """The output of a command in the container. Raises DockerFailed."""
        return await docker("exec", self.name, *command)

    async def copy(self, source: str, target: Path) -> None:
        """Copies a file out of the container."""
        await docker("cp", f"{self.name}:{source}", str(target))

    async def kill(self) -> None:
        """Kills its processes with SIGKILL."""
        await docker("kill", self.name)

    async def stop(self) -> None:
        """Stops it with SIGTERM."""
        await docker("stop", "--time", "30", self.name)

    async def start(self) -> None:
        """Starts it again with its data."""
        await docker("start", self.name)

    async def started_at(self) -> str:
        """The time of the last start: evidence of a restart."""
        return await docker("inspect", "--format", "{{.State.StartedAt}}", self.name)


@asynccontextmanager
async def containers(password: str) -> AsyncIterator[tuple[Container, Container]]:
    """Starts a fresh PostgreSQL (with fsync) and RabbitMQ, and removes them with their data at the end.

    Both have the user `orderflow` with this password. They may not answer yet.
    """
    try:
        await docker("info", "--format", "{{.ServerVersion}}")
    except DockerFailed as failure:
        raise NoDocker(str(failure)) from failure
    postgres = Container(f"orderflow-faults-{os.getpid()}-postgres", free_port())
    rabbitmq = Container(f"orderflow-faults-{os.getpid()}-rabbitmq", free_port())
    async with AsyncExitStack() as stack:
        for container in (postgres, rabbitmq):
            stack.push_async_callback(_remove, container)
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
    """`docker run` up to the image. The host name is fixed, as RabbitMQ's data belongs to its node name."""
    return [
        *("run", "--detach", "--name", container.name, "--hostname", container.name.rsplit("-", 1)[-1]),
        *("--publish", f"127.0.0.1:{container.port}:{port}", "--memory", memory, "--shm-size", shm),
    ]


def _environment(**variables: str) -> list[str]:
    return [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]


async def _remove(container: Container) -> None:
    await docker("rm", "--force", "--volumes", container.name)
