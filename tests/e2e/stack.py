"""The system in containers, with its own project name, ports and image name."""

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
    *(f"{role.upper()}_DB_PASSWORD" for role in (*SERVICES, "provider", "carrier", "auditor")),
)
ANY_PASSWORD = "p@ss:w/o%r#d? &='\"\\$1+[::1]"
"""All passwords of the stack: any printable characters must work."""
T = TypeVar("T")
NOTHING: Mapping[str, str] = {}


class ComposeFailed(Exception):
    """A `docker compose` command failed; the message has its output and the containers' logs."""


class Stack:
    """A `docker compose` project that shares nothing with others on the same machine."""

    def __init__(self) -> None:
        self.project = os.environ.get("E2E_PROJECT", f"orderflow-e2e-{uuid.uuid4().hex[:8]}")
        gateway, mail, rabbitmq = free_ports(3)
        self.gateway_url = f"http://127.0.0.1:{gateway}"
        self.mail_url = f"http://127.0.0.1:{mail}"
        self.image = f"orderflow-e2e:{self.project}"
        self.sandbox_image = f"orderflow-e2e-sandbox:{self.project}"
        self._settings = {
            "ORDERFLOW_IMAGE": self.image,
            "SANDBOX_IMAGE": self.sandbox_image,
            "GATEWAY_PORT": str(gateway),
            "MAIL_PORT": str(mail),
            "RABBITMQ_PORT": str(rabbitmq),
            **dict.fromkeys(PASSWORDS, ANY_PASSWORD),
        }

    def compose(self, *arguments: str, settings: Mapping[str, str] = NOTHING, seconds: float = 300) -> str:
        """Run a compose command, without `.env` and without input, and return its output."""
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
            output = f"{done.stdout}\n{done.stderr}\n{self.logs()}"
            raise ComposeFailed(f"docker compose {' '.join(arguments)} failed:\n{output}")
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
        """Remove everything: containers, networks, data, images."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "10")
        images = ["docker", "image", "rm", self.image, self.sandbox_image]
        subprocess.run(images, capture_output=True, timeout=60, check=False)

    def containers(self, *services: str) -> list[dict[str, Any]]:
        """`docker inspect` of the containers of these services, stopped ones too."""
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
        """The containers' latest log lines."""
        command = ["docker", "compose", "-p", self.project, "logs", "--no-color", "--tail=40", *services]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr


def free_ports(count: int) -> list[int]:
    """Free ports on the loopback interface."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def eventually(probe: Callable[[], T], holds: Callable[[T], bool], seconds: float = 60) -> T:
    """Call `probe` until its answer holds, and return the answer; fail with the last one after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds(answer := probe()):
        assert time.monotonic() < deadline, f"does not hold after {seconds} s: {answer}"
        time.sleep(0.2)
    return answer
