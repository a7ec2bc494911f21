"""The system in containers, under a project, ports and an image name of its own."""

import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("order", "invoice", "billing", "shipment", "email")
PASSWORDS = (
    "POSTGRES_PASSWORD",
    "RABBITMQ_PASSWORD",
    *(f"{role.upper()}_DB_PASSWORD" for role in (*SERVICES, "provider", "auditor")),
)
ANY_PASSWORD = "p@ss:w/o%r#d? &='\"\\$1+[::1]"
"""What the stack's passwords are: any that can be printed works."""
T = TypeVar("T")
NOTHING: Mapping[str, str] = {}


class ComposeFailed(Exception):
    """A `docker compose` command failed; the message holds what it and the containers said."""


class Stack:
    """One `docker compose` project. Nothing of it is shared with another on the same machine."""

    def __init__(self) -> None:
        self.project = os.environ.get("E2E_PROJECT", f"orderflow-e2e-{uuid.uuid4().hex[:8]}")
        gateway, mail, rabbitmq = free_ports(3)
        self.gateway_url = f"http://127.0.0.1:{gateway}"
        self.mail_url = f"http://127.0.0.1:{mail}"
        self._image = f"orderflow-e2e:{self.project}"
        self._settings = {
            "ORDERFLOW_IMAGE": self._image,
            "GATEWAY_PORT": str(gateway),
            "MAIL_PORT": str(mail),
            "RABBITMQ_PORT": str(rabbitmq),
            **dict.fromkeys(PASSWORDS, ANY_PASSWORD),
        }

    def compose(self, *arguments: str, settings: Mapping[str, str] = NOTHING, seconds: float = 300) -> str:
        """Run a compose command and return what it printed; there is no `.env` and no input."""
        done = subprocess.run(
            ["sh", "deploy/compose.sh", "-p", self.project, "--env-file", os.devnull, *arguments],
            cwd=ROOT,
            env={**os.environ, **self._settings, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            said = f"{done.stdout}\n{done.stderr}\n{self.logs()}"
            raise ComposeFailed(f"docker compose {' '.join(arguments)} failed:\n{said}")
        return done.stdout

    def shell(self, script: str, folder: Path, seconds: float = 300) -> str:
        """Run commands as a page shows them, in a folder; `docker compose` is this project there."""
        compose = f"sh {ROOT}/deploy/compose.sh -p {self.project} --env-file {os.devnull}"
        ours = f'docker() {{ shift; {compose} "$@"; }}'
        done = subprocess.run(
            ["sh", "-euc", f"{ours}\n{script}"],
            cwd=folder,
            env={**os.environ, **self._settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise ComposeFailed(f"{script}\nfailed:\n{done.stdout}\n{done.stderr}\n{self.logs()}")
        return done.stdout

    def build(self) -> None:
        """Build the image."""
        self.compose("--progress", "plain", "build", seconds=900)

    def up(self, *arguments: str, settings: Mapping[str, str] = NOTHING) -> None:
        """Start what is not running and wait until every container is healthy."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", "180", *arguments, settings=settings)

    def down(self) -> None:
        """Remove the containers and keep the data."""
        self.compose("down")

    def remove(self) -> None:
        """Remove everything: containers, networks, data, image."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "10")
        subprocess.run(["docker", "image", "rm", self._image], capture_output=True, timeout=60, check=False)

    def containers(self, *services: str) -> list[dict[str, Any]]:
        """What the engine knows of the containers of these services, stopped ones too."""
        ids = self.compose("ps", "--all", "--quiet", *services).split()
        inspected = subprocess.run(["docker", "inspect", *ids], capture_output=True, timeout=60, check=True)
        containers: list[dict[str, Any]] = json.loads(inspected.stdout)
        return containers

    def addresses(self, service: str) -> set[str]:
        """The addresses of the service's replicas on the project's network."""
        return {
            network["IPAddress"]
            for container in self.containers(service)
            for network in container["NetworkSettings"]["Networks"].values()
        }

    def logs(self, *services: str) -> str:
        """What the containers said last."""
        command = ["docker", "compose", "-p", self.project, "logs", "--no-color", "--tail=40", *services]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        return said.stdout + said.stderr


def free_ports(count: int) -> list[int]:
    """Ports on the loopback interface that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def eventually(probe: Callable[[], T], holds: Callable[[T], bool], seconds: float = 60) -> T:
    """Ask until the answer holds, and return it; fail with the last answer when the time is over."""
    deadline = time.monotonic() + seconds
    while not holds(answer := probe()):
        assert time.monotonic() < deadline, f"still not so after {seconds} s: {answer}"
        time.sleep(0.2)
    return answer
