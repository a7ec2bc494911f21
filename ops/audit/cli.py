"""`orderflow audit`, as typer sees it."""

from pathlib import Path
from typing import Annotated

import typer

from ops.carrying_out import carry_out
from ops.options import BrokerUrl, DatabaseUrl, State


def audit(
    database_url: DatabaseUrl = "",
    broker_url: BrokerUrl = "",
    state: State = Path("var/run"),
    *,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="The system is at rest: whatever is not finished is a breach.")
    ] = False,
    patience: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long what is on its way may take.")
    ] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Check that nothing is lost and nobody charged twice, on a system that runs or one that stands still.

    Compares every service's records with one another, with the broker's queues and with the payment
    provider's own ledger. Changes nothing; the role <database>_auditor is enough.

    Exits 0 only if every promise is kept.
    """
    from ops.audit.command import command  # noqa: PLC0415

    carry_out(
        lambda: command(database_url, broker_url, state, quiet=quiet, patience=patience, as_json=as_json)
    )
