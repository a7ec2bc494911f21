"""`orderflow audit`: what it prints."""

import json
import time
from dataclasses import asdict
from pathlib import Path

import typer

from ops.audit.audit import audit
from ops.audit.ledger import ledger_of
from ops.audit.report import Report
from ops.target import target


async def command(
    database_url: str, broker_url: str, state: Path, *, quiet: bool, patience: float, as_json: bool
) -> int:
    """Audits the system and prints the report; returns the exit status."""
    began = time.monotonic()
    async with target(database_url, broker_url, state) as found:
        report = await audit(found, ledger=ledger_of(found.database_url), quiet=quiet, patience=patience)
    if as_json:
        typer.echo(json.dumps(asdict(report) | {"holds": report.holds}, default=str))
    else:
        _print(report, time.monotonic() - began)
    return 0 if report.holds else 1


def _print(report: Report, seconds: float) -> None:
    broken = {breach.invariant for breach in report.breaches}
    for invariant, promise in report.checked.items():
        mark = typer.style("✗", fg="red") if invariant in broken else typer.style("✓", fg="green")
        typer.echo(f"  {mark} {invariant:<4} {promise}")
    for breach in report.breaches:
        typer.secho(f"\n{breach.invariant}: {breach.sentence}", fg="red", bold=True)
        for order_id in breach.order_ids:
            typer.echo(f"  {order_id}")
        if breach.order_ids and breach.count > len(breach.order_ids):
            typer.echo(f"  … {breach.count} in all")
    for note in report.notes:
        typer.secho(f"\n{note}", fg="yellow")
    verdict = "Every promise is kept." if report.holds else f"{len(report.breaches)} promises are not kept."
    typer.secho(f"\n{report.orders:,} orders checked in {seconds:.1f} s. {verdict}", bold=True)
