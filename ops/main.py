"""The `orderflow` command: run, demo, migrate, audit, stuck, dead, refunds, replay, reconcile, restore, …

What a command needs is imported when it runs, so that `--help` answers at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from ops.audit.cli import audit
from ops.carrying_out import carry_out
from ops.dead.cli import app as dead
from ops.reconcile.cli import reconcile
from ops.refunds.cli import app as refunds
from ops.replay.cli import replay
from ops.restore.cli import restore
from ops.stripe.cli import stripe
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
            envvar="PORT", metavar="PORT", min=0, max=65535, help="Where it serves on 127.0.0.1; 0 takes any."
        ),
    ] = 8000,
    state: Annotated[
        Path,
        typer.Option(
            envvar="STATE", metavar="FOLDER", help="The folder where database, mails and log are kept."
        ),
    ] = Path("var/run"),
    database_url: DatabaseUrl = "",
) -> None:
    """Serve the whole system in one process, with nothing else installed.

    The services and their PostgreSQL, all kept in one folder. Payments are simulated and mails are files
    there, unless PAYMENT_PROVIDER or SMTP_URL say otherwise.

    Ctrl-C stops it. Started again it goes on where it was, even after a crash.
    """
    from ops.run import run as command  # noqa: PLC0415

    carry_out(lambda: command(port, state, database_url or None))


@app.command()
def demo(
    orders: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A folder with other orders, and an expected.toml that says where each ends.",
        ),
    ] = None,
) -> None:
    """Watch realistic orders go through the whole system.

    Starts it on a fresh folder and a free port, places the orders of examples/ and shows each on its way.
    Payments are simulated and mails are files, whatever PAYMENT_PROVIDER and SMTP_URL say.

    Exits 0 only if every order ended where it should, and every mail was written.
    """
    from ops.demo.command import demo as command  # noqa: PLC0415

    carry_out(lambda: command(orders))


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
    """Bring database and broker to what this version needs.

    Makes each service's role, schema and tables, and the broker's exchanges and queues, once both answer.

    Safe to repeat, and to run beside a live system. The roles get the passwords ORDER_DB_PASSWORD and so on;
    by default the service's name.
    """
    from ops.migrate import command  # noqa: PLC0415

    carry_out(lambda: command(database_url, broker_url or None))


app.command()(audit)
app.command()(stuck)
app.command()(reconcile)
app.add_typer(dead, name="dead")
app.add_typer(refunds, name="refunds")
app.command()(replay)
app.command()(restore)
app.command()(stripe)


if __name__ == "__main__":
    app(prog_name="orderflow")
