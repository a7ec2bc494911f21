"""The command line of `orderflow replay`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from ops.execute import execute_on_target
from ops.options import ActorName, BrokerUrl, DatabaseUrl, StatePath


def replay(
    *,
    service: Annotated[str, typer.Option(metavar="NAME", help="The only service that gets the events.")],
    since: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="Announced since 2026-11-24T09:30Z, or since 2h (s, m, h, d, w) ago."
        ),
    ],
    until: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Announced before this time.", show_default="now"),
    ] = None,
    order: Annotated[UUID | None, typer.Option(metavar="ID", help="Only events of this order.")] = None,
    event_type: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Only events of this type.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Include events that the service has handled already.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")
    ] = False,
    actor_name: ActorName = "",
    database_url: DatabaseUrl = "",
    broker_url: BrokerUrl = "",
    state: StatePath = Path("var/run"),
) -> None:
    """Hand a service the events that it missed, from the outboxes of their publishers.

    The service handles them as soon as it runs. Replaying an event that it has handled changes nothing.
    """
    from ops.replay.command import command  # noqa: PLC0415
    from ops.replay.replay import ReplayRequest  # noqa: PLC0415
    from ops.times import InvalidTime, parse_time  # noqa: PLC0415

    now = datetime.now(UTC)

    def read(text: str, option: str) -> datetime:
        try:
            return parse_time(text, now)
        except InvalidTime as error:
            raise typer.BadParameter(str(error), param_hint=option) from error

    request = ReplayRequest(
        service,
        since=read(since, "--since"),
        until=read(until, "--until") if until else None,
        order_id=order,
        event_type=event_type,
        again=again,
    )

    execute_on_target(
        *(database_url, broker_url, state),
        lambda on: command(on, request, actor_name=actor_name, dry_run=dry_run),
    )
