"""`orderflow replay`: replays events and prints how many."""

import typer

from events.errors import Unavailable
from ops.actor import resolve_actor
from ops.errors import CommandFailed
from ops.owner_database import connect_as_owner
from ops.replay.replay import ReplayRequest, replay_events
from ops.services import check_service
from ops.target import Target


async def command(target: Target, request: ReplayRequest, *, actor_name: str, dry_run: bool) -> int:
    """Replays the events and prints how many; returns the exit status. Raises CommandFailed."""
    check_service(request.service)
    actor = "" if dry_run else resolve_actor(actor_name)
    try:
        async with connect_as_owner(target.database_url, "replay") as owned:
            count = await replay_events(owned, request, actor=actor, dry_run=dry_run)
    except Unavailable as error:
        raise CommandFailed(str(error)) from error
    outcome = "would be handed to" if dry_run else "were handed to"
    for event_type, number in sorted(count.items()):
        typer.echo(f"{number} {event_type} events {outcome} {request.service}.")
    if not count:
        typer.echo(
            "There is nothing to replay." if request.again else f"Nothing is missing at {request.service}."
        )
    return 0
