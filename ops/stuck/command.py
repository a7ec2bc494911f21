"""`orderflow stuck`: what it prints."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import typer

from ops.errors import RecordsUnreadable
from ops.stuck.search import MOST, stuck_orders
from ops.stuck.waiting import StuckOrder
from ops.target import open_target


async def command(database_url: str, state: Path, *, older_than: timedelta | None, as_json: bool) -> int:
    """Prints the stuck orders; returns the exit status."""
    async with open_target(database_url, "", state) as found:
        orders = await _search(found.database_url, older_than)
    if as_json:
        typer.echo(json.dumps([_document(order) for order in orders], default=str))
    else:
        _print(orders)
    return 1 if orders else 0


async def _search(url: str, older_than: timedelta | None) -> list[StuckOrder]:
    try:
        connection = await asyncpg.connect(url.replace("+asyncpg", "", 1), timeout=5)
        try:
            return await stuck_orders(connection, older_than=older_than)
        finally:
            await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise RecordsUnreadable(error) from error


def _document(order: StuckOrder) -> dict[str, object]:
    waits = [
        asdict(waiting) | {"words": waiting.words(), "helps": waiting.helps(order.id)}
        for waiting in order.waits_for
    ]
    return asdict(order) | {"waits_for": waits}


def _print(orders: Sequence[StuckOrder]) -> None:
    if not orders:
        typer.echo("No order is stuck.")
        return
    now = datetime.now(UTC)
    for order in orders:
        reference = f" ({order.reference})" if order.reference else ""
        typer.secho(f"{order.id}{reference}: {order.status} for {_ago(now - order.since)}", bold=True)
        for waiting in order.waits_for:
            failures = f", {waiting.attempts} failures" if waiting.attempts else ""
            since = f"since {waiting.since:%Y-%m-%d %H:%M:%S} UTC"
            typer.echo(f"  {waiting.words()}, {since}{failures}{_next(waiting.next_try, now)}")
            if waiting.error:
                typer.echo(f"    last error: {waiting.error}")
            typer.secho(f"    {waiting.helps(order.id)}", fg="yellow")
    more = ", and perhaps more" if len(orders) == MOST else ""
    typer.secho(f"\n{len(orders)} orders are stuck{more}.", bold=True)


def _next(at: datetime | None, now: datetime) -> str:
    if at is None:
        return ""
    return ", next try is due" if at <= now else f", next try at {at:%Y-%m-%d %H:%M:%S} UTC"


def _ago(span: timedelta) -> str:
    """A span of time in its largest unit."""
    seconds = int(span.total_seconds())
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"
