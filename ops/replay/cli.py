"""`orderflow replay` as typer sees it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from ops.carrying_out import carry_out
from ops.options import As, BrokerUrl, DatabaseUrl, State


def replay(
    *,
    service: Annotated[str, typer.Option(metavar="NAME", help="The service that gets them, alone.")],
    since: Annotated[
        str,
        typer.Option(metavar="TIME", help="Announced since: 2026-11-24T09:30Z, or 2h (s, m, h, d, w) ago."),
    ],
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Announced before.", show_default="now")
    ] = None,
    order: Annotated[UUID | None, typer.Option(metavar="ID", help="Only about this order.")] = None,
    event_type: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Only of this type.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also what the service has handled already.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    named: As = "",
    database_url: DatabaseUrl = "",
    broker_url: BrokerUrl = "",
    state: State = Path("var/run"),
) -> None:
    """Hand a service the events that it missed, from the outboxes of those that announced them.

    The service handles them as soon as it runs. Replaying what it has handled changes nothing.
    """
    from ops.moments import NotAMoment, moment  # noqa: PLC0415
    from ops.replay.command import command  # noqa: PLC0415
    from ops.replay.refill import Refill  # noqa: PLC0415
    from ops.target import target  # noqa: PLC0415

    now = datetime.now(UTC)

    def read(text: str, option: str) -> datetime:
        try:
            return moment(text, now)
        except NotAMoment as error:
            raise typer.BadParameter(str(error), param_hint=option) from error

    what = Refill(
        service,
        since=read(since, "--since"),
        until=read(until, "--until") if until else None,
        order_id=order,
        event_type=event_type,
        again=again,
    )

    async def carried_out() -> int:
        async with target(database_url, broker_url, state) as on:
            return await command(on, what, named=named, dry_run=dry_run)

    carry_out(carried_out)
