"""`orderflow stuck`: finds the stuck orders and prints them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import asyncpg
import typer

from events.connection import DRIVER_ERRORS
from ops.errors import RecordsUnreadable
from ops.stuck.search import MAX_ORDERS, stuck_orders
from ops.stuck.waiting import StuckOrder
from ops.target import Target


async def command(target: Target, *, older_than: timedelta | None, as_json: bool) -> int:
    """Prints the stuck orders; returns the exit status. Raises CommandFailed."""
    orders = await _search(target.database_url, older_than)
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
    except DRIVER_ERRORS as error:
        raise RecordsUnreadable(error) from error


def _document(order: StuckOrder) -> dict[str, object]:
    waits = [
        asdict(waiting) | {"words": waiting.description(), "helps": waiting.advice(order.id)}
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
        typer.secho(f"{order.id}{reference}: {order.status} for {_rounded(now - order.since)}", bold=True)
        for waiting in order.waits_for:
            failures = f", failed tries: {waiting.attempts}" if waiting.attempts else ""
            since = f"since {waiting.since:%Y-%m-%d %H:%M:%S} UTC"
            typer.echo(f"  {waiting.description()}, {since}{failures}{_next_try(waiting.next_try, now)}")
            if waiting.error:
                typer.echo(f"    last error: {waiting.error}")
            typer.secho(f"    {waiting.advice(order.id)}", fg="yellow")
    more = ", and perhaps more" if len(orders) == MAX_ORDERS else ""
    typer.secho(f"\nStuck orders: {len(orders)}{more}.", bold=True)


def _next_try(at: datetime | None, now: datetime) -> str:
    if at is None:
        return ""
    return ", next try is due" if at <= now else f", next try at {at:%Y-%m-%d %H:%M:%S} UTC"


def _rounded(span: timedelta) -> str:
    """A duration in its largest unit."""
    seconds = int(span.total_seconds())
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"
