"""`orderflow audit`: options and help."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ops.execute import execute_on_target
from ops.options import BrokerUrl, DatabaseUrl, StatePath


def audit(
    database_url: DatabaseUrl = "",
    broker_url: BrokerUrl = "",
    state: StatePath = Path("var/run"),
    *,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="The system is at rest: all unfinished work is a breach.")
    ] = False,
    patience: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="How old unfinished work may be."),
    ] = 30.0,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Check only orders accepted since: 2026-11-24T09:30Z, or 2h (s, m, h, d, w) ago. "
            "The provider is asked for its charges since then.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check that nothing is lost and nobody was charged twice, on a running or a stopped system.

    Compares the services' records with one another, with the broker's queues and with the payment provider's
    own ledger. Reports the parts that do not answer, and checks the rest. Changes nothing; the role
    <database>_auditor is enough.

    Exits 0 if everything was checked and every promise is kept, 1 if one is broken, 3 if no breach was found
    but not everything could be checked.
    """
    from ops.audit.command import command  # noqa: PLC0415
    from ops.times import InvalidTime, parse_time  # noqa: PLC0415

    try:
        accepted_since = parse_time(since, datetime.now(UTC)) if since else None
    except InvalidTime as error:
        raise typer.BadParameter(str(error), param_hint="--since") from error

    execute_on_target(
        *(database_url, broker_url, state),
        lambda on: command(on, quiet=quiet, patience=patience, since=accepted_since, as_json=as_json),
    )
