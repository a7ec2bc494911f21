"""The command line of `orderflow refunds`."""

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from ops.execute import execute_on_target
from ops.options import ActorName, DatabaseUrl, StatePath

app = typer.Typer(help="Refunds made by hand, because the payment provider did not.", no_args_is_help=True)


@app.callback()
def _refunds() -> None:
    """Makes typer keep `record` as a subcommand, although it is the only one."""


@app.command()
def record(
    *,
    order: Annotated[UUID, typer.Option(metavar="ID", help="The order whose payment was refunded.")],
    reference: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Proof of the refund: a refund's id, a transfer's number."),
    ],
    note: Annotated[str, typer.Option(metavar="TEXT", help="Why it was done by hand; it goes on record.")],
    actor_name: ActorName = "",
    database_url: DatabaseUrl = "",
    state: StatePath = Path("var/run"),
) -> None:
    """Record that a person has refunded an order's whole payment.

    Only for a dead refund (`orderflow dead list --service billing`): the provider may still make any other.
    The order becomes PAYMENT_REFUNDED, and its customer gets a mail with the reference.
    """
    for value, option in ((reference, "--reference"), (note, "--note")):
        if not value.strip():
            raise typer.BadParameter("it must not be blank", param_hint=option)
    if len(reference) > 200:
        raise typer.BadParameter("at most 200 characters", param_hint="--reference")

    from ops.refunds import command  # noqa: PLC0415

    execute_on_target(
        *(database_url, "", state),
        lambda on: command.record(on, order, reference=reference.strip(), note=note, actor_name=actor_name),
    )
