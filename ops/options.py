"""Options that several commands have in common: which system they are about, and who acts on it."""

from pathlib import Path
from typing import Annotated

import typer

DatabaseUrl = Annotated[
    str,
    typer.Option(
        envvar="DATABASE_URL",
        metavar="URL",
        show_default=False,
        help="The system's PostgreSQL, as its owner. Without it: the system in the state folder.",
    ),
]
BrokerUrl = Annotated[
    str,
    typer.Option(envvar="BROKER_URL", metavar="URL", show_default=False, help="Its RabbitMQ, if it has one."),
]
State = Annotated[
    Path,
    typer.Option(envvar="STATE", metavar="FOLDER", help="Where the system in one process keeps its state."),
]
As = Annotated[
    str,
    typer.Option(
        "--as",
        envvar="ORDERFLOW_ACTOR",
        metavar="NAME",
        show_default=False,
        help="Who does this, for the record. Needed where your account is not your own: root, containers.",
    ),
]
"""For every command that writes an intervention; `ops.actor.actor` makes the name of it."""
