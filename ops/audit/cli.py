"""`orderflow audit`, as typer sees it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ops.execute import execute
from ops.options import BrokerUrl, DatabaseUrl, StatePath


def audit(
    database_url: DatabaseUrl = "",
    broker_url: BrokerUrl = "",
    state: StatePath = Path("var/run"),
    *,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="The system is at rest: whatever is not finished is a breach.")
    ] = False,
    patience: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long what is on its way may take.")
    ] = 30.0,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only orders accepted since: 2026-11-24T09:30Z, or 2h (s, m, h, d, w) ago. "
            "The provider is asked for no more than that.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Check that nothing is lost and nobody charged twice, on a system that runs or one that stands still.

    Compares every service's records with one another, with the broker's queues and with the payment
    provider's own ledger. What does not answer is said; the rest is checked. Changes nothing; the role
    <database>_auditor is enough.

    Exits 0 if everything was checked and every promise is kept, 1 if one is not, 3 if no breach was found but
    not everything could be checked.
    """
    from ops.audit.command import command  # noqa: PLC0415
    from ops.times import InvalidTime, parse_time  # noqa: PLC0415

    try:
        begin = parse_time(since, datetime.now(UTC)) if since else None
    except InvalidTime as error:
        raise typer.BadParameter(str(error), param_hint="--since") from error
    execute(
        lambda: command(
            database_url, broker_url, state, quiet=quiet, patience=patience, since=begin, as_json=as_json
        )
    )
