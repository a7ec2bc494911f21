"""`orderflow dead` as typer sees it."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from uuid import UUID

import typer

from ops.execute import execute
from ops.options import ActorName, BrokerUrl, DatabaseUrl, StatePath

if TYPE_CHECKING:
    from ops.target import Target

app = typer.Typer(
    help="See what was set aside for a person, and try it again or give it up.", no_args_is_help=True
)

Service = Annotated[str | None, typer.Option(metavar="NAME", help="Only what this service has set aside.")]
Reason = Annotated[
    str | None, typer.Option(metavar="WORD", help="Only with this reason, as `list` shows it.")
]
EventType = Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Only of this type.")]
Order = Annotated[UUID | None, typer.Option(metavar="ID", help="Only about this order.")]
Ids = Annotated[list[UUID] | None, typer.Argument(metavar="[EVENT_ID]...", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="Everything that the other options leave.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Json = Annotated[bool, typer.Option("--json", help="For scripts.")]


@app.command("list")
def list_(
    *,
    service: Service = None,
    reason: Reason = None,
    event_type: EventType = None,
    order: Order = None,
    each: Annotated[bool, typer.Option("--each", help="A line each, instead of groups.")] = False,
    as_json: Json = False,
    database_url: DatabaseUrl = "",
    broker_url: BrokerUrl = "",
    state: StatePath = Path("var/run"),
) -> None:
    """What is dead, grouped by failure: events, and other work that its service has given up."""
    from ops.dead import command  # noqa: PLC0415

    choice = command.Choice(service, reason, event_type, order)
    _carry_out(
        database_url, broker_url, state, lambda on: command.list_(on, choice, each=each, as_json=as_json)
    )


@app.command()
def show(
    event_id: Annotated[UUID, typer.Argument(metavar="EVENT_ID")],
    as_json: Json = False,
    database_url: DatabaseUrl = "",
    broker_url: BrokerUrl = "",
    state: StatePath = Path("var/run"),
) -> None:
    """All that is known of one event or other work that failed, but for its payment method."""
    from ops.dead import command  # noqa: PLC0415

    _carry_out(database_url, broker_url, state, lambda on: command.show(on, event_id, as_json=as_json))


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
    """Try dead work again, now and with its attempts counted anew; by its id also work that waits.

    The service does it as soon as it runs. Asking twice does no harm. Every act is recorded.
    """
    from ops.dead import command  # noqa: PLC0415

    _choosing(event_ids, every, service, reason, event_type, order)
    choice = command.Choice(service, reason, event_type, order, tuple(event_ids or ()))
    _carry_out(
        database_url,
        broker_url,
        state,
        lambda on: command.replay(on, choice, named=named, dry_run=dry_run),
    )


@app.command()
def discard(
    *,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is kept.")],
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
    """Give dead events and mails up for good; by its id also one that waits for its next try.

    They are kept, and nothing brings them back. Every act is recorded.
    """
    from ops.dead import command  # noqa: PLC0415

    _choosing(event_ids, every, service, reason, event_type, order)
    if not note.strip():
        raise typer.BadParameter("say why", param_hint="--note")
    choice = command.Choice(service, reason, event_type, order, tuple(event_ids or ()))
    _carry_out(
        database_url,
        broker_url,
        state,
        lambda on: command.discard(on, choice, named=named, note=note, dry_run=dry_run),
    )


def _choosing(*given: object) -> None:
    """Nothing is done to everything because an option was forgotten."""
    if not any(given):
        raise typer.BadParameter(
            "name event ids, or say which with --service, --reason, --type, --order or --all"
        )


def _carry_out(
    database_url: str, broker_url: str, state: Path, act: "Callable[[Target], Coroutine[Any, Any, int]]"
) -> NoReturn:
    from ops.target import open_target  # noqa: PLC0415

    async def command() -> int:
        async with open_target(database_url, broker_url, state) as on:
            return await act(on)

    execute(command)
