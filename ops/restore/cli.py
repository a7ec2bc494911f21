"""`orderflow restore` as typer sees it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from ops.execute import execute
from ops.options import ActorName, BrokerUrl, DatabaseUrl, StatePath


def restore(
    *,
    last_invoice: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NUMBER",
            show_default=False,
            help="The highest invoice number that was mailed: 2026-000123. Repeat it for another year.",
        ),
    ] = None,
    leave: Annotated[
        bool,
        typer.Option(
            "--leave/--refund", help="The charges of lost orders: leave them, or give the money back."
        ),
    ] = False,
    order: Annotated[
        list[UUID] | None,
        typer.Option(
            metavar="ID", show_default=False, help="Only the charge of this order. Repeat it for more."
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            show_default="all",
            help="Compare only charges since: 2026-11-24T09:30Z, or 2d ago. Earlier than the backup.",
        ),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it. Without it, only say what would be done.")
    ] = False,
    named: ActorName = "",
    note: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; it is kept.")] = None,
    database_url: DatabaseUrl = "",
    broker_url: BrokerUrl = "",
    state: StatePath = Path("var/run"),
) -> None:
    """Settle what an older database has forgotten, after a backup was brought back.

    The payment provider and the customers' mails know what happened since the backup. Charges of lost orders
    are given back, charges of orders that are here pay for them, invoice numbers go on after the last one
    mailed, and messages about lost orders are dropped. Nobody has paid twice in the end.

    Run it while the services are stopped. Running it again does no harm. Every act is recorded.
    """
    from ops import migrate  # noqa: PLC0415
    from ops.restore.command import Asked, command  # noqa: PLC0415
    from ops.target import open_target  # noqa: PLC0415
    from ops.times import parse_time  # noqa: PLC0415
    from services.invoice.domain import NotAnInvoiceNumber, Number  # noqa: PLC0415

    try:
        numbers = [Number.parse(text) for text in last_invoice or ()]
    except NotAnInvoiceNumber as error:
        raise typer.BadParameter(str(error), param_hint="--last-invoice") from error
    try:
        moment_of_since = parse_time(since, datetime.now(UTC)) if since else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from error
    asked = Asked(
        last_invoices=numbers,
        leave=leave,
        orders=frozenset(order or ()),
        since=moment_of_since,
        apply=apply,
        named=named,
        note=note,
    )

    async def carried_out() -> int:
        async with open_target(database_url, broker_url, state) as on:
            if not database_url:  # the system in one process is migrated when it starts, which is too late
                await migrate.migrate(on.database_url, migrate.passwords_from_environment())
            return await command(on, asked)

    execute(carried_out)
