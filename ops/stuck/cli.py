"""`orderflow stuck`: options and help."""

from pathlib import Path
from typing import Annotated

import typer

from ops.execute import execute_on_target
from ops.options import DatabaseUrl, StatePath


def stuck(
    database_url: DatabaseUrl = "",
    state: StatePath = Path("var/run"),
    *,
    older_than: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            show_default=False,
            help="Replaces every deadline, for example 10m.",
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List orders that are delayed or late: what each waits for, its next try, and what to do about it.

    Changes nothing; the role <database>_auditor is enough.

    Exits 0 if no order is stuck, 1 otherwise.
    """
    from ops.stuck.command import command  # noqa: PLC0415
    from ops.times import InvalidDuration, parse_duration  # noqa: PLC0415

    try:
        age = parse_duration(older_than) if older_than else None
    except InvalidDuration as error:
        raise typer.BadParameter(str(error), param_hint="--older-than") from error

    execute_on_target(database_url, "", state, lambda on: command(on, older_than=age, as_json=as_json))
