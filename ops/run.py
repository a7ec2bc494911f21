"""`orderflow run`: the whole system in one process, serving until it is stopped."""

import asyncio
import os
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from shlex import quote
from socket import socket
from typing import Final
from urllib.request import getproxies, proxy_bypass

import typer

from chassis.process import PortTaken, listen
from chassis.stopping import Stopped, cancel_when, stop_on_signals
from ops.embedded import ExternalServices, embedded_system
from ops.errors import CommandFailed
from ops.log_file import log_to_file
from ops.migrate import owner_url
from ops.state import StateFolder, lock_state_folder

HOST: Final = "127.0.0.1"
EXAMPLES: Final = Path(__file__).resolve().parents[1] / "examples"


class PortInUse(CommandFailed):
    """The port is taken. The message names a free one."""

    def __init__(self, taken: PortTaken, free: int) -> None:
        super().__init__(f"{taken} Choose another: PORT={free} is free.")


async def run(port: int, folder: Path, database_url: str | None) -> int:
    """Serves on `port` with the state in `folder`, until Ctrl-C; returns the exit status.

    Raises:
        UnusableSettings: the environment's settings can't be used.
        CommandFailed: the port, the folder or the database can't be used, or the database was lost.
    """
    url = owner_url(database_url) if database_url else None
    stop = stop_on_signals()

    def notify(notice: str) -> None:
        if not stop.is_set():  # while stopping, unfinished work is expected: the next run does it
            typer.secho(f"  {notice}", fg="yellow", err=True)

    with lock_state_folder(folder) as state, _listener(port) as listener:
        log_to_file(state.log, notify)
        external = ExternalServices.from_environment(state)
        typer.echo(f"Orderflow is starting in {folder} …")
        announcing = asyncio.create_task(_announce_stop(stop))
        try:
            async with AsyncExitStack() as stack:
                async with cancel_when(stop.wait):
                    system = await stack.enter_async_context(embedded_system(state, url, external))
                typer.echo(_welcome(listener.getsockname()[1], state, external))
                await system.serve(listener, stop)
        except Stopped:
            typer.echo("Stopped before it was ready.")
        else:
            typer.echo(f"Stopped. Everything is kept in {folder}; the next run goes on from there.")
        finally:
            announcing.cancel()
    return 0


def _listener(port: int) -> socket:
    try:
        return listen(HOST, port)
    except PortTaken as taken:
        raise PortInUse(taken, _next_free(port)) from taken


def _next_free(port: int) -> int:
    for candidate in range(port + 1, 65536):
        with suppress(PortTaken), listen(HOST, candidate):
            return candidate
    with listen(HOST, 0) as any_free:
        return int(any_free.getsockname()[1])


async def _announce_stop(stop: asyncio.Event) -> None:
    await stop.wait()
    typer.echo("\nStopping: work in progress is finished first (Ctrl-C again ends it at once) …")


def _welcome(port: int, state: StateFolder, external: ExternalServices) -> str:
    origin = f"http://{HOST}:{port}"
    heading = typer.style(f"Orderflow is ready: every service in one process, on {origin}", bold=True)
    return f"""
{heading}

  Place an order:
    {_curl()} -i -d @{quote(os.path.relpath(EXAMPLES / "order.json"))} \\
      -H 'Content-Type: application/json' {origin}/orders

  Follow it:  {origin}/orders/... (the answer's Location)
  The API:    {origin}/docs
  Mails:      {external.mail_location}
  Log:        {state.log}

  Ctrl-C stops it. However it ends, the next run continues all its work.
"""


def _curl() -> str:
    """`curl`, bypassing a proxy if one is set that would take calls to this host."""
    return "curl --noproxy '*'" if "http" in getproxies() and not proxy_bypass(HOST) else "curl"
