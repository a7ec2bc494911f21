"""`orderflow restore`: options and help."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from ops.execute import execute_on_target
from ops.options import ActorName, BrokerUrl, DatabaseUrl, StatePath

if TYPE_CHECKING:
    from ops.target import Target


def restore(
    *,
    last_invoice: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NUMBER",
            show_default=False,
            help="The highest invoice number that was mailed, as 2026-000123. Repeatable: one for each year.",
        ),
    ] = None,
    leave: Annotated[
        bool,
        typer.Option(
            "--leave/--refund", help="Leave the charges of lost orders at the provider, or refund them."
        ),
    ] = False,
    order: Annotated[
        list[UUID] | None,
        typer.Option(metavar="ID", show_default=False, help="Only the charge of this order. Repeatable."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            show_default="all",
            help="Compare only charges since: 2026-11-24T09:30Z, or 2d ago. Must be before the backup.",
        ),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Make the changes. Without it, they are only printed.")
    ] = False,
    named: ActorName = "",
    note: Annotated[str | None, typer.Option(metavar="TEXT", help="The reason, for the record.")] = None,
    database_url: DatabaseUrl = "",
    broker_url: BrokerUrl = "",
    state: StatePath = Path("var/run"),
) -> None:
    """Bring a restored backup in line with the payment provider and the mails, so that nobody pays twice.

    Refunds the charges of lost orders, assigns charges to orders that are here without their payment,
    continues invoice numbers after the last one mailed, and drops messages from the queues.

    Run it while the services are stopped. Running it again does no harm. Every change is recorded.
    """
    from ops import migrate  # noqa: PLC0415
    from ops.restore.command import RestoreOptions, command  # noqa: PLC0415
    from ops.times import parse_time  # noqa: PLC0415
    from services.invoice.domain import NotAnInvoiceNumber, Number  # noqa: PLC0415

    try:
        numbers = [Number.parse(text) for text in last_invoice or ()]
    except NotAnInvoiceNumber as error:
        raise typer.BadParameter(str(error), param_hint="--last-invoice") from error
    try:
        charged_since = parse_time(since, datetime.now(UTC)) if since else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from error
    options = RestoreOptions(
        last_invoices=numbers,
        leave=leave,
        orders=frozenset(order or ()),
        since=charged_since,
        apply=apply,
        named=named,
        note=note,
    )

    async def migrate_and_restore(system: "Target") -> int:
        if not database_url:  # the embedded system is migrated when it starts, which is too late
            await migrate.migrate(system.database_url, migrate.passwords_from_environment())
        return await command(system, options)

    execute_on_target(database_url, broker_url, state, migrate_and_restore)
