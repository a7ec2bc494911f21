"""`orderflow dead`: options and help."""

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from ops.execute import execute_on_target
from ops.options import ActorName, BrokerUrl, DatabaseUrl, StatePath

app = typer.Typer(
    help="List failed events and work that need a person, and replay or discard them.", no_args_is_help=True
)

Service = Annotated[str | None, typer.Option(metavar="NAME", help="Only of this service.")]
Reason = Annotated[
    str | None, typer.Option(metavar="WORD", help="Only with this reason, as `list` shows it.")
]
EventType = Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Only of this type.")]
Order = Annotated[UUID | None, typer.Option(metavar="ID", help="Only about this order.")]
Ids = Annotated[list[UUID] | None, typer.Argument(metavar="[EVENT_ID]...", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="All that match the other options.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_(
    *,
    service: Service = None,
    reason: Reason = None,
    event_type: EventType = None,
    order: Order = None,
    each: Annotated[bool, typer.Option("--each", help="One line for each, instead of groups.")] = False,
    as_json: Json = False,
    database_url: DatabaseUrl = "",
    broker_url: BrokerUrl = "",
    state: StatePath = Path("var/run"),
) -> None:
    """List dead events and dead work, grouped by service, type and reason."""
    from ops.dead import command  # noqa: PLC0415

    selection = command.Selection(service, reason, event_type, order)
    execute_on_target(
        database_url, broker_url, state, lambda on: command.list_(on, selection, each=each, as_json=as_json)
    )


@app.command()
def show(
    event_id: Annotated[UUID, typer.Argument(metavar="EVENT_ID")],
    as_json: Json = False,
    database_url: DatabaseUrl = "",
    broker_url: BrokerUrl = "",
    state: StatePath = Path("var/run"),
) -> None:
    """Show everything about one failed event or row of work, with its payment method masked."""
    from ops.dead import command  # noqa: PLC0415

    execute_on_target(database_url, broker_url, state, lambda on: command.show(on, event_id, as_json=as_json))


@app.command()
def replay(
    *,
    event_ids: Ids = None,
    every: All = False,
    service: Service = None,
    reason: Reason = None,
    event_type: EventType = None,
    order: Order = None,
    dry_run: DryRun = False,
    named: ActorName = "",
    database_url: DatabaseUrl = "",
    broker_url: BrokerUrl = "",
    state: StatePath = Path("var/run"),
) -> None:
    """Retry dead events and work now, with their attempts reset to zero.

    With its id, work that waits for its next try is retried at once too. The service does it as soon as it
    runs. Replaying twice does no harm. Every replay is recorded.
    """
    from ops.dead import command  # noqa: PLC0415

    _check_selected(event_ids, every, service, reason, event_type, order)
    selection = command.Selection(service, reason, event_type, order, tuple(event_ids or ()))
    execute_on_target(
        database_url,
        broker_url,
        state,
        lambda on: command.replay(on, selection, named=named, dry_run=dry_run),
    )


@app.command()
def discard(
    *,
    note: Annotated[str, typer.Option(metavar="TEXT", help="The reason, for the record.")],
    event_ids: Ids = None,
    every: All = False,
    service: Service = None,
    reason: Reason = None,
    event_type: EventType = None,
    order: Order = None,
    dry_run: DryRun = False,
    named: ActorName = "",
    database_url: DatabaseUrl = "",
    broker_url: BrokerUrl = "",
    state: StatePath = Path("var/run"),
) -> None:
    """Discard dead events and mails for good: the rows are kept, but nothing retries them.

    With its id, one that waits for its next try is discarded too. Every discard is recorded.
    """
    from ops.dead import command  # noqa: PLC0415

    _check_selected(event_ids, every, service, reason, event_type, order)
    if not note.strip():
        raise typer.BadParameter("give a reason", param_hint="--note")
    selection = command.Selection(service, reason, event_type, order, tuple(event_ids or ()))
    execute_on_target(
        database_url,
        broker_url,
        state,
        lambda on: command.discard(on, selection, named=named, note=note, dry_run=dry_run),
    )


def _check_selected(*given: object) -> None:
    """Raises BadParameter if nothing was selected, so that a forgotten option does not select everything."""
    if not any(given):
        raise typer.BadParameter(
            "give event ids, or select with --service, --reason, --type, --order or --all"
        )
