"""`orderflow restore`: what it prints, and in which order it does what it was asked for."""

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
from ops.restore.charges import Findings, Found, Situation
from ops.restore.standstill import check_migrated, check_standstill
from ops.services import SERVICES
from ops.target import Target
from services.billing.main import connect_provider
from services.billing.provider import ListingProvider
from services.billing.recovered_charges import RecoveredCharge
from services.billing.settings import BillingSettings
from services.invoice import repository as invoices
from services.invoice.domain import Number


class NoLastInvoice(CommandFailed):
    """The highest invoice number has to be told, so that none is given out twice."""

    def __init__(self, present: Number | None) -> None:
        here = f"the highest here is {present}" if present else "there is none here"
        super().__init__(
            "Name the highest invoice number that was mailed, with --last-invoice 2026-000123 "
            f"({here}: name that one if no invoice was mailed since the backup)."
        )


@dataclass(frozen=True)
class Asked:
    """What is to be done."""

    last_invoices: Sequence[Number] = ()
    """The highest number that was mailed, of each year."""
    leave: bool = False
    """Whether the charges of lost orders stay with the provider, in place of being given back."""
    orders: frozenset[UUID] = frozenset()
    """Only the charges of these orders; empty for all."""
    since: datetime | None = None
    apply: bool = False
    named: str = ""
    """Who does it, as `actor` takes it."""
    note: str | None = None


async def command(target: Target, asked: Asked) -> int:
    """Finds what the database has forgotten, and settles it if asked to; returns the exit status.

    Raises CommandFailed.
    """
    try:
        async with connect_as_owner(target.database_url, "restore") as owned:
            await check_migrated(owned)
            async with _provider(target.database_url) as provider:
                return await _settle(target, asked, owned, provider)
    except (Unavailable, UnknownOutcome) as error:
        raise CommandFailed(f"{error} Run it again: nothing is done twice.") from error


async def _settle(target: Target, asked: Asked, owned: OwnerDatabase, provider: ListingProvider) -> int:
    async with owned.as_service("invoice") as tx:
        present = await invoices.last_number(tx)
    who = resolve_actor(asked.named) if asked.apply else ""
    if asked.apply:
        if not asked.last_invoices:
            raise NoLastInvoice(present)
        await check_standstill(owned, target.broker_url)
    findings = await charges.find(owned, provider, asked.since, _tell)
    decisions = _decided(findings, asked)
    _print_charges(findings, decisions)
    typer.echo(f"The highest invoice number here is {present or 'none'}.")
    for last in asked.last_invoices:
        await _lose_numbers(owned, last, asked, who)
    if not asked.apply:
        typer.echo("Nothing was changed. With --apply it is done.")
        return 0
    if target.broker_url:
        for service, count in (await purge(target.broker_url, SERVICES)).items():
            typer.echo(f"{count} messages in the queue of {service} were dropped.")
    await charges.decide(owned, provider.name, decisions, actor=who, note=asked.note)
    failures = await charges.give_back(owned, provider, findings.refunded, _tell)
    for failure in failures:
        typer.secho(f"Not given back: {failure}", fg="red", err=True)
    typer.echo(
        f"{len(failures)} charges could not be given back: run it again, or give them back at the provider."
        if failures
        else "Done. Start the services, then run 'orderflow audit'."
    )
    return 1 if failures else 0


def _provider(database_url: str) -> AbstractAsyncContextManager[ListingProvider]:
    """The provider that billing's environment names; the simulated one is in the database, unless told."""
    given: dict[str, Any] = {"database_url": database_url}
    if not os.environ.get("PROVIDER_DATABASE_URL"):
        password = migrate.passwords_from_environment()[migrate.PROVIDER]
        given["provider_database_url"] = migrate.url_for(database_url, migrate.PROVIDER, password)
    return connect_provider(read(BillingSettings, **given))


def _decided(findings: Findings, asked: Asked) -> list[RecoveredCharge]:
    return [
        decision
        for found in findings.charges
        if not asked.orders or found.charge.order_id in asked.orders
        if (decision := found.decided(leave=asked.leave, named=found.charge.order_id in asked.orders))
    ]


async def _lose_numbers(owned: OwnerDatabase, last: Number, asked: Asked, who: str) -> None:
    async with owned.as_service("invoice") as tx:
        first = await invoices.next_number(tx, last.year)
        if first > last:
            typer.echo(f"{last} is not beyond it: no number is lost.")
            return
        typer.echo(f"{first} to {last} are lost: the next invoice is {Number(last.year, last.serial + 1)}.")
        if asked.apply:
            await invoices.record_lost_up_to(tx, last)
            lost = Subject(type="invoice numbers", reason=f"lost: {first} to {last}")
            await interventions.record(tx, "restore", [lost], actor=who, note=asked.note)


def _print_charges(findings: Findings, decisions: Sequence[RecoveredCharge]) -> None:
    decided = {decision.charge.reference: decision for decision in decisions}
    for found in findings.charges:
        typer.echo(f"{_line(found)}: {_fate(found, decided.get(found.charge.reference))}.")
    for each in findings.refunds:
        typer.echo(
            f"{each.refund.reference}  refund of order {each.order_id}: not known here. It is found when the "
            "parcel is refused again; if the carrier takes it this time, 'orderflow audit' names the order."
        )
    if not (findings.charges or findings.refunds):
        typer.echo("The provider has no charge and no refund that is not known here.")


def _line(found: Found) -> str:
    charge = found.charge
    reference = f" ({charge.order_reference})" if charge.order_reference else ""
    amount = f"{format_amount(charge.amount, charge.currency)} {charge.currency}"
    return (
        f"{charge.reference}  {charge.at:%Y-%m-%d %H:%M:%SZ}  {amount}  order {charge.order_id}{reference}: "
        f"{found.situation.value}"
    )


def _fate(found: Found, decision: RecoveredCharge | None) -> str:
    match decision:
        case RecoveredCharge(decision="kept") if found.situation is Situation.WAITING:
            return "it pays for the order"
        case RecoveredCharge(decision="kept"):
            return "it is left, and pays if the order is placed again with the same Idempotency-Key"
        case RecoveredCharge(to_refund=0):
            return "it was given back already"
        case RecoveredCharge():
            return "it is given back"
        case None:
            return "it was kept before" if found.kept else "it is not touched now"


def _tell(progress: str) -> None:
    typer.echo(progress, err=True)
