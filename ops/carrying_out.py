"""How a command is carried out: to its end, what goes wrong told in a sentence, its status for the shell."""

import logging
import sys
from collections.abc import Callable, Coroutine
from io import TextIOWrapper
from typing import Any, NoReturn

import typer
import uvloop

from chassis.settings import UnusableSettings
from ops.errors import INTERRUPTED, CommandFailed


def carry_out(command: Callable[[], Coroutine[Any, Any, int]]) -> NoReturn:
    """Runs a command to its end and exits with its status; what goes wrong becomes a sentence."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # where the locale knows few characters
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
