"""`orderflow stuck`, as typer sees it."""

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
            help="Such as 10m, in place of each deadline.",
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List the orders that are held up or late: what each waits for, when it is tried next, and what helps.

    Changes nothing; the role <database>_auditor is enough.

    Exits 0 if there is none, 1 if there are some.
    """
    from ops.stuck.command import command  # noqa: PLC0415
    from ops.times import InvalidDuration, parse_duration  # noqa: PLC0415

    try:
        age = parse_duration(older_than) if older_than else None
    except InvalidDuration as error:
        raise typer.BadParameter(str(error), param_hint="--older-than") from error
    execute(lambda: command(database_url, state, older_than=age, as_json=as_json))
