"""`orderflow audit`: runs the audit and prints its report."""

import json
import time
from dataclasses import asdict
from datetime import datetime
from typing import Final

import typer

from ops.audit.audit import audit
from ops.audit.ledger import ledger_of
from ops.audit.report import Report
from ops.target import Target

INCOMPLETE: Final = 3
"""Exit status of an audit that found no breach but could not check everything."""


async def command(
    target: Target, *, quiet: bool, patience: float, since: datetime | None, as_json: bool
) -> int:
    """Audits the system and prints the report; returns the exit status. Raises CommandFailed."""
    began = time.monotonic()
    ledger = ledger_of(target.database_url)
    report = await audit(target, ledger=ledger, quiet=quiet, patience=patience, since=since)
    if as_json:
        typer.echo(json.dumps(asdict(report) | {"holds": report.holds}, default=str))
    else:
        _print(report, since, time.monotonic() - began)
    if report.breaches:
        return 1
    return INCOMPLETE if report.unseen else 0


def _print(report: Report, since: datetime | None, seconds: float) -> None:
    broken = {breach.invariant for breach in report.breaches}
    unseen = {invariant for each in report.unseen for invariant in each.invariants}
    for invariant, promise in report.checked.items():
        if invariant in broken:
            mark = typer.style("✗", fg="red")
        else:
            mark = typer.style("?", fg="yellow") if invariant in unseen else typer.style("✓", fg="green")
        typer.echo(f"  {mark} {invariant:<4} {promise}")
    for breach in report.breaches:
        typer.secho(f"\n{breach.invariant}: {breach.sentence}", fg="red", bold=True)
        for order_id in breach.order_ids:
            typer.echo(f"  {order_id}")
        if breach.order_ids and breach.count > len(breach.order_ids):
            typer.echo(f"  … {breach.count} in all")
    for each in report.unseen:
        typer.secho(f"\nNot seen: {each.reason}", fg="yellow", bold=True)
        if each.invariants:
            typer.echo(f"  Not checked, or not in full: {', '.join(each.invariants)}.")
    for note in report.notes:
        typer.secho(f"\n{note}", fg="yellow")
    orders = "?" if report.orders is None else f"{report.orders:,}"
    accepted = f" accepted since {since:%Y-%m-%dT%H:%MZ}" if since else ""
    typer.secho(
        f"\n{orders} orders{accepted} checked in {seconds:.1f} s. {_verdict(report, len(broken))}", bold=True
    )


def _verdict(report: Report, broken: int) -> str:
    """The last sentence of the report."""
    if report.holds:
        return "Every promise is kept."
    words = f"{broken} of the promises are not kept." if broken else "No breach was found."
    return words + (" Not everything could be checked." if report.unseen else "")
