"""`orderflow stuck`: options and help."""

from pathlib import Path
from typing import Annotated

import typer

from ops.execute import execute
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
    from ops.target import open_target  # noqa: PLC0415
    from ops.times import InvalidDuration, parse_duration  # noqa: PLC0415

    try:
        age = parse_duration(older_than) if older_than else None
    except InvalidDuration as error:
        raise typer.BadParameter(str(error), param_hint="--older-than") from error

    async def run() -> int:
        async with open_target(database_url, "", state) as system:
            return await command(system, older_than=age, as_json=as_json)

    execute(run)
