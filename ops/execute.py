"""Runs a command of `orderflow` and turns its outcome into an exit status."""

import logging
import sys
from collections.abc import Callable, Coroutine
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
import uvloop

from chassis.settings import UnusableSettings
from ops.errors import INTERRUPTED, CommandFailed

if TYPE_CHECKING:
    from ops.target import Target


def execute(command: Callable[[], Coroutine[Any, Any, int]]) -> NoReturn:
    """Runs the command to its end and exits with the status that it returns.

    CommandFailed and UnusableSettings are printed as a sentence, with status 1. Any other exception is a
    defect: it is logged with its traceback, with status 1.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # the locale's encoding may lack some of our characters
    try:
        status = uvloop.run(command())
    except (CommandFailed, UnusableSettings) as failure:
        typer.echo(failure, err=True)
        status = 1
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Exception as defect:
        logging.getLogger(__name__).error("this should not have happened: %r", defect, exc_info=True)
        status = 1
    raise typer.Exit(status)


def execute_on_target(
    database_url: str, broker_url: str, state: Path, command: "Callable[[Target], Coroutine[Any, Any, int]]"
) -> NoReturn:
    """Executes a command on the system that `open_target` opens."""
    from ops.target import open_target  # noqa: PLC0415

    async def on_target() -> int:
        async with open_target(database_url, broker_url, state) as target:
            return await command(target)

    execute(on_target)
