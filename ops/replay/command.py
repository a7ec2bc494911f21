"""`orderflow replay`: fills what is missing at one service, or gives it all again."""

import typer

from events.errors import Unavailable
from ops.actor import actor
from ops.errors import CommandFailed
from ops.replay.refill import Refill, refill
from ops.schemas import schemas
from ops.services import check_service
from ops.target import Target


async def command(target: Target, what: Refill, *, named: str, dry_run: bool) -> int:
    """Puts the events in and says how many; returns the exit status. Raises CommandFailed.

    `named` is who does it, as `actor` takes it.
    """
    check_service(what.service)
    who = "" if dry_run else actor(named)
    try:
        async with schemas(target.database_url, "replay") as owned:
            count = await refill(owned, what, actor=who, dry_run=dry_run)
    except Unavailable as error:
        raise CommandFailed(str(error)) from error
    fate = "would be handed to" if dry_run else "were handed to"
    for event_type, number in sorted(count.items()):
        typer.echo(f"{number} {event_type} events {fate} {what.service}.")
    if not count:
        typer.echo(
            f"Nothing is missing at {what.service}." if not what.again else "There is nothing to replay."
        )
    return 0
