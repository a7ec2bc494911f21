"""`orderflow stuck`: options and help."""

from pathlib import Path
from typing import Annotated

import typer

from ops.carrying_out import carry_out
from ops.options import DatabaseUrl, State


def stuck(
    database_url: DatabaseUrl = "",
    state: State = Path("var/run"),
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
    from ops.moments import NotASpan, span  # noqa: PLC0415
    from ops.stuck.command import command  # noqa: PLC0415
    from ops.target import target  # noqa: PLC0415

    try:
        age = span(older_than) if older_than else None
    except NotASpan as error:
        raise typer.BadParameter(str(error), param_hint="--older-than") from error

    async def run() -> int:
        async with target(database_url, "", state) as system:
            return await command(system, older_than=age, as_json=as_json)

    carry_out(run)
