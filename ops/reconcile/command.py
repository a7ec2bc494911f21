"""`orderflow reconcile`: as a process beside the services, or one pass."""

import asyncio
import sys

import typer

from chassis import database
from chassis.settings import BrokerSettings, LogSettings, TextLogSettings, read
from chassis.stopping import stop_on_signals
from chassis.telemetry import configure_logging
from events import rabbitmq
from events.errors import Postponed, Unavailable, UnknownOutcome
from events.transactions import Transactions
from ops.errors import CommandFailed
from ops.migrate import owner_url
from ops.reconcile.reconciler import Reconciler


class NotReconciled(CommandFailed):
    """The database or the broker does not answer."""


async def command(database_url: str, broker_url: str, *, once: bool) -> int:
    """Reconciles until SIGTERM or, with `once`, in one pass over everything; returns the exit status.

    Raises:
        UnusableSettings: a URL can't be used.
        CommandFailed: with `once`, the database or the broker does not answer.
    """
    configure_logging("reconcile", read(TextLogSettings if sys.stderr.isatty() else LogSettings))
    stop = stop_on_signals()
    connection = database.connect(owner_url(database_url), pool=2, application="reconcile")
    broker = read(BrokerSettings, broker_url=broker_url)
    async with connection as pool, rabbitmq.RabbitMQBus(broker.broker_url) as bus:
        reconciler = Reconciler(Transactions(pool), bus)
        if once:
            return await _run_once(reconciler)
        reconciling = asyncio.create_task(reconciler.run(), name="reconcile")
        await stop.wait()
        reconciling.cancel()
        await asyncio.wait([reconciling])
    return 0


async def _run_once(reconciler: Reconciler) -> int:
    try:
        resent, skipped = await reconciler.run_once()
    except (Unavailable, Postponed, UnknownOutcome) as error:
        raise NotReconciled(str(error)) from error
    for each in resent:
        typer.echo(f"Sent {each.count} {each.type} events again that {each.service} never got.")
    for service, backlog in skipped.items():
        why = (
            f"{backlog} messages wait in its queue" if backlog else "it has no queue: run 'orderflow migrate'"
        )
        typer.echo(f"Skipped {service}: {why}.")
    if not resent:
        typer.echo("Nothing is missing." if not skipped else "Nothing is missing at the other services.")
    return 0
