"""The command line of `orderflow reconcile`."""

from typing import Annotated

import typer

from ops.execute import execute


def reconcile(
    database_url: Annotated[
        str,
        typer.Option(
            envvar="DATABASE_URL",
            metavar="URL",
            show_default=False,
            help="The database, as a role that may read every schema, such as <database>_auditor.",
        ),
    ],
    broker_url: Annotated[
        str,
        typer.Option(
            envvar="BROKER_URL",
            metavar="URL",
            show_default=False,
            help="RabbitMQ: amqp://user:password@host:5672/",
        ),
    ],
    once: Annotated[bool, typer.Option("--once", help="Make one pass over all messages, then end.")] = False,
) -> None:
    """Send published events again to services that never got them.

    Compares outboxes with inboxes until SIGTERM. Missing events go to the queue of the service concerned, and
    to no other. `orderflow run` includes this.
    """
    from ops.reconcile.command import command  # noqa: PLC0415

    execute(lambda: command(database_url, broker_url, once=once))
