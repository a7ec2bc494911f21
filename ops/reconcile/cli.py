"""`orderflow reconcile` as typer sees it."""

from typing import Annotated

import typer

from ops.carrying_out import carry_out


def reconcile(
    database_url: Annotated[
        str,
        typer.Option(
            envvar="DATABASE_URL",
            metavar="URL",
            show_default=False,
            help="The database, as a role that may read every schema: <database>_auditor is enough.",
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
    once: Annotated[bool, typer.Option("--once", help="One pass over everything, then end.")] = False,
) -> None:
    """Send again what a service never got of what was published.

    Compares outboxes with inboxes all the time, until SIGTERM, and sends what is missing to that service's
    queue alone. `orderflow run` does it by itself.
    """
    from ops.reconcile.command import command  # noqa: PLC0415

    carry_out(lambda: command(database_url, broker_url, once=once))
