"""Options that several commands share: which system a command acts on, and who gives it."""

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
    typer.Option(
        envvar="BROKER_URL", metavar="URL", show_default=False, help="The system's RabbitMQ, if it has one."
    ),
]
StatePath = Annotated[
    Path,
    typer.Option(envvar="STATE", metavar="FOLDER", help="State folder of the system in one process."),
]
ActorName = Annotated[
    str,
    typer.Option(
        "--as",
        envvar="ORDERFLOW_ACTOR",
        metavar="NAME",
        show_default=False,
        help="Your name, for the record. Required for root, in containers, and for service accounts.",
    ),
]
"""For every command that records an intervention; `ops.actor.resolve_actor` checks it."""
