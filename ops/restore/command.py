"""`orderflow restore`: the order of its steps, and what it prints."""

import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import typer

from chassis.settings import read
from events import interventions
from events.errors import Unavailable, UnknownOutcome
from events.interventions import Subject
from events.money import format_amount
from events.rabbitmq import purge
from ops import migrate
from ops.actor import resolve_actor
from ops.errors import CommandFailed
from ops.owner_database import OwnerDatabase, connect_as_owner
from ops.restore import charges
from ops.restore.charges import Cause, Comparison, UnknownCharge
from ops.restore.preconditions import check_migrated, check_services_stopped
from ops.services import SERVICES
from ops.target import Target
from services.billing.main import connect_provider
from services.billing.provider import ListingProvider
from services.billing.recovered_charges import RecoveredCharge
from services.billing.settings import BillingSettings
from services.invoice import repository as invoices
from services.invoice.domain import Number


class NoLastInvoice(CommandFailed):
    """Without the highest invoice number that was mailed, a number could be issued twice."""

    def __init__(self, present: Number | None) -> None:
        here = f"the highest here is {present}" if present else "there is none here"
        super().__init__(
            "Give the highest invoice number that was mailed, as --last-invoice 2026-000123 "
            f"({here}: give that one if no invoice was mailed since the backup)."
        )


@dataclass(frozen=True)
class RestoreOptions:
    """The options of the command."""

    last_invoices: Sequence[Number] = ()
    """The highest number that was mailed in each year."""
    leave: bool = False
    """Whether the charges of lost orders are left at the provider instead of refunded."""
    orders: frozenset[UUID] = frozenset()
    """Only the charges of these orders are decided; empty for all."""
    since: datetime | None = None
    apply: bool = False
    named: str = ""
    """The operator's name, as `actor` takes it."""
    note: str | None = None


async def command(target: Target, options: RestoreOptions) -> int:
    """Prints what the database has lost and, with `apply`, corrects it; returns the exit status.

    Raises CommandFailed.
    """
    try:
        async with connect_as_owner(target.database_url, "restore") as owned:
            await check_migrated(owned)
            async with _provider(target.database_url) as provider:
                return await _restore(target, options, owned, provider)
    except (Unavailable, UnknownOutcome) as error:
        raise CommandFailed(f"{error} Run it again: no step is done twice.") from error


async def _restore(
    target: Target, options: RestoreOptions, owned: OwnerDatabase, provider: ListingProvider
) -> int:
    async with owned.as_service("invoice") as tx:
        present = await invoices.last_number(tx)
    who = resolve_actor(options.named) if options.apply else ""
    if options.apply:
        if not options.last_invoices:
            raise NoLastInvoice(present)
        await check_services_stopped(owned, target.broker_url)
    comparison = await charges.compare(owned, provider, options.since, _print_progress)
    decisions = _decisions(comparison, options)
    _print_charges(comparison, decisions)
    typer.echo(f"The highest invoice number here is {present or 'none'}.")
    for last in options.last_invoices:
        await _record_lost_numbers(owned, last, options, who)
    if not options.apply:
        typer.echo("Nothing was changed. To make these changes, add --apply.")
        return 0
    if target.broker_url:
        for service, count in (await purge(target.broker_url, SERVICES)).items():
            typer.echo(f"{count} messages in the queue of {service} were dropped.")
    await charges.record_decisions(owned, provider.name, decisions, actor=who, note=options.note)
    failures = await charges.make_refunds(owned, provider, comparison.refunded, _print_progress)
    for failure in failures:
        typer.secho(f"Not refunded: {failure}", fg="red", err=True)
    typer.echo(
        f"{len(failures)} charges could not be refunded: run it again, or refund them at the provider."
        if failures
        else "Done. Start the services, then run 'orderflow audit'."
    )
    return 1 if failures else 0


def _provider(database_url: str) -> AbstractAsyncContextManager[ListingProvider]:
    """The provider that PAYMENT_PROVIDER names; the simulated one is in this database by default."""
    given: dict[str, Any] = {"database_url": database_url}
    if not os.environ.get("PROVIDER_DATABASE_URL"):
        password = migrate.passwords_from_environment()[migrate.PROVIDER]
        given["provider_database_url"] = migrate.url_for(database_url, migrate.PROVIDER, password)
    return connect_provider(read(BillingSettings, **given))


def _decisions(comparison: Comparison, options: RestoreOptions) -> list[RecoveredCharge]:
    return [
        decision
        for unknown in comparison.charges
        if not options.orders or unknown.charge.order_id in options.orders
        if (decision := unknown.decision(leave=options.leave, named=bool(options.orders)))
    ]


async def _record_lost_numbers(owned: OwnerDatabase, last: Number, options: RestoreOptions, who: str) -> None:
    async with owned.as_service("invoice") as tx:
        first = await invoices.next_number(tx, last.year)
        if first > last:
            typer.echo(f"{last} is not higher: no number is lost.")
            return
        typer.echo(f"{first} to {last} are lost: the next invoice is {Number(last.year, last.serial + 1)}.")
        if options.apply:
            await invoices.record_lost_up_to(tx, last)
            lost = Subject(type="invoice numbers", reason=f"lost: {first} to {last}")
            await interventions.record(tx, "restore", [lost], actor=who, note=options.note)


def _print_charges(comparison: Comparison, decisions: Sequence[RecoveredCharge]) -> None:
    decided = {decision.charge.reference: decision for decision in decisions}
    for unknown in comparison.charges:
        typer.echo(f"{_line(unknown)}: {_outcome(unknown, decided.get(unknown.charge.reference))}.")
    for each in comparison.refunds:
        typer.echo(
            f"{each.refund.reference}  refund of order {each.order_id}: not known here. If the carrier "
            "refuses the parcel again, billing finds it; if not, 'orderflow audit' names the order."
        )
    if not (comparison.charges or comparison.refunds):
        typer.echo("The provider has no charge and no refund that is unknown here.")


def _line(unknown: UnknownCharge) -> str:
    charge = unknown.charge
    reference = f" ({charge.order_reference})" if charge.order_reference else ""
    amount = f"{format_amount(charge.amount, charge.currency)} {charge.currency}"
    return (
        f"{charge.reference}  {charge.at:%Y-%m-%d %H:%M:%SZ}  {amount}  order {charge.order_id}{reference}: "
        f"{unknown.cause.value}"
    )


def _outcome(unknown: UnknownCharge, decision: RecoveredCharge | None) -> str:
    match decision:
        case RecoveredCharge(decision="kept") if unknown.cause is Cause.PAYMENT_LOST:
            return "it pays for the order"
        case RecoveredCharge(decision="kept"):
            return "it is left, and pays if the order is placed again with the same Idempotency-Key"
        case RecoveredCharge(to_refund=0):
            return "it was refunded already"
        case RecoveredCharge():
            return "it is refunded"
        case None:
            return "an earlier run kept it" if unknown.kept else "it is not changed"


def _print_progress(sentence: str) -> None:
    typer.echo(sentence, err=True)
