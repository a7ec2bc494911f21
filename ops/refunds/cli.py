"""`orderflow refunds` as typer sees it."""

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from ops.carrying_out import carry_out
from ops.options import As, DatabaseUrl, State

app = typer.Typer(help="Refunds that the payment provider does not make.", no_args_is_help=True)


@app.callback()
def _refunds() -> None:
    """Keeps `record` a command of its own, although it is the only one."""


@app.command()
def record(
    *,
    order: Annotated[UUID, typer.Option(metavar="ID", help="The order whose payment was given back.")],
    reference: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="Where the money can be found: a refund's id, a transfer's number."
        ),
    ],
    note: Annotated[str, typer.Option(metavar="TEXT", help="Why it was done by hand; it is kept.")],
    named: As = "",
    database_url: DatabaseUrl = "",
    state: State = Path("var/run"),
) -> None:
    """Record that a person has given an order's whole payment back.

    Only for a refund that is dead (`orderflow dead list --service billing`): the provider may still make any
    other. The order becomes PAYMENT_REFUNDED, and its customer is told, with the reference.
    """
    for value, option in ((reference, "--reference"), (note, "--note")):
        if not value.strip():
            raise typer.BadParameter("say it in words", param_hint=option)
    if len(reference) > 200:
        raise typer.BadParameter("at most 200 characters", param_hint="--reference")

    from ops.refunds import command  # noqa: PLC0415
    from ops.target import target  # noqa: PLC0415

    async def act() -> int:
        async with target(database_url, "", state) as on:
            return await command.record(on, order, reference=reference.strip(), note=note, named=named)

    carry_out(act)
