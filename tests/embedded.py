"""`orderflow run` and the demo as processes, and a look into the database that they leave behind."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from events.journey import ENDS

DEADLINE = 60.0
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


class Orderflow:
    """One process of the `orderflow` command, and its output so far."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said = ""

    async def says(self, pattern: str) -> re.Match[str]:
        """Waits for this pattern in its output."""
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            while not (found := re.search(pattern, self.said)):
                line = await self.process.stdout.readline()
                assert line, f"it ended without saying {pattern!r}:\n{self.said}"
                self.said += line.decode()
        return found

    async def origin(self) -> str:
        """The origin that it serves on, once it serves."""
        return (await self.says(r"is ready.* (http://\S+)"))[1]

    async def ended(self) -> int:
        """Its exit status, negative for a signal, once it has ended."""
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            self.said += (await self.process.stdout.read()).decode()
            return await self.process.wait()

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self.process.send_signal(number)


@asynccontextmanager
async def orderflow(
    *arguments: str, folder: Path, module: str = "ops.main", **environment: str
) -> AsyncIterator[Orderflow]:
    """`orderflow` with these arguments, working in `folder`; killed at the end if it still runs."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in {"PORT", "STATE", "DATABASE_URL", "BROKER_URL"}
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", module, *arguments),
        stdout=PIPE,
        stderr=STDOUT,
        cwd=folder,
        env=inherited | environment,
    )
    try:
        yield Orderflow(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def running(state: Path, **environment: str) -> AsyncIterator[tuple[Orderflow, httpx.AsyncClient]]:
    """`orderflow run` on a state folder and a free port, ready, with a client for it; stopped at the end."""
    environment = {"PORT": "0", "STATE": str(state)} | environment
    async with (
        orderflow("run", folder=state.parent, **environment) as process,
        httpx.AsyncClient(base_url=await process.origin(), trust_env=False, timeout=30) as api,
    ):
        try:
            yield process, api
        finally:
            if process.process.returncode is None:  # killed, it would leave its database running
                process.send(signal.SIGTERM)
                await process.ended()


async def finished(api: httpx.AsyncClient, order_id: str) -> dict[str, Any]:
    """The order once it has come to its end."""
    async with asyncio.timeout(DEADLINE):
        while True:
            order: dict[str, Any] = (await api.get(f"/orders/{order_id}")).raise_for_status().json()
            if order["status"] in ENDS:
                return order
            await asyncio.sleep(0.05)


@asynccontextmanager
async def database_of(state: Path) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """The embedded PostgreSQL that runs on a state folder, as its owner."""
    _, sockets = (state / "postgres" / "server.lock").read_text().splitlines()
    connection = await asyncpg.connect(host=sockets, port=5432, user="postgres", database="orderflow")
    try:
        yield connection
    finally:
        await connection.close()


def postmaster_of(state: Path) -> int:
    """Process id of the embedded PostgreSQL on a state folder."""
    return int((state / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])
