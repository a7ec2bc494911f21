"""The `orderflow` command: run, migrate, audit, stuck, dead, refunds, replay, reconcile, restore, …

Each command imports its code when it runs, so that `--help` answers at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from ops.audit.cli import audit
from ops.dead.cli import app as dead
from ops.execute import execute
from ops.reconcile.cli import reconcile
from ops.refunds.cli import app as refunds
from ops.replay.cli import replay
from ops.restore.cli import restore
from ops.stuck.cli import stuck

DatabaseUrl = Annotated[
    str,
    typer.Option(
        envvar="DATABASE_URL",
        metavar="URL",
        show_default=False,
        help="A PostgreSQL of your own, as a role that may create roles.",
    ),
]

app = typer.Typer(
    help="Orderflow: accepted orders are never lost, nobody is charged twice.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    port: Annotated[
        int,
        typer.Option(
            envvar="PORT", metavar="PORT", min=0, max=65535, help="Port on 127.0.0.1; 0 takes any free one."
        ),
    ] = 8000,
    state: Annotated[
        Path,
        typer.Option(envvar="STATE", metavar="FOLDER", help="The folder that keeps database, mails and log."),
    ] = Path("var/run"),
    database_url: DatabaseUrl = "",
) -> None:
    """Serve the whole system in one process, with nothing else installed.

    Runs the services and their PostgreSQL, and keeps all data in one folder. Payments are simulated and
    mails are files there, unless PAYMENT_PROVIDER or SMTP_URL are set.

    Ctrl-C stops it. The next run continues where this one ended, even after a crash.
    """
    from ops.run import run as command  # noqa: PLC0415

    execute(lambda: command(port, state, database_url or None))


@app.command()
def migrate(
    database_url: DatabaseUrl,
    broker_url: Annotated[
        str,
        typer.Option(
            envvar="BROKER_URL",
            metavar="URL",
            show_default=False,
            help="RabbitMQ: amqp://user:password@host:5672/. Without it only the database is migrated.",
        ),
    ] = "",
) -> None:
    """Migrate database and broker to this version.

    Waits for both to answer. Creates each service's role, schema and tables, and the broker's exchanges and
    queues.

    Safe to repeat, and to run beside a live system. The roles get the passwords ORDER_DB_PASSWORD and so on;
    by default, a role's password is its service's name.
    """
    from ops.migrate import command  # noqa: PLC0415

    execute(lambda: command(database_url, broker_url or None))


app.command()(audit)
app.command()(stuck)
app.command()(reconcile)
app.add_typer(dead, name="dead")
app.add_typer(refunds, name="refunds")
app.command()(replay)
app.command()(restore)


if __name__ == "__main__":
    app(prog_name="orderflow")
