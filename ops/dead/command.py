"""`orderflow dead`: list, show, replay and discard, and what they print."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import groupby
from uuid import UUID

import msgspec
import typer

from events.errors import BrokerUnavailable, Unavailable
from ops.actor import resolve_actor
from ops.dead import dead_letters, repository
from ops.dead.masking import masked
from ops.dead.repository import FailedWork
from ops.errors import CommandFailed
from ops.owner_database import OwnerDatabase, connect_as_owner
from ops.services import SERVICES, check_service
from ops.target import Target


class NoSuchWork(CommandFailed):
    """No event and no work of that id is dead or waits for its next try."""

    def __init__(self, row_id: UUID) -> None:
        super().__init__(f"Nothing with the id {row_id} is dead or waits for its next try.")


@dataclass(frozen=True)
class Selection:
    """Selects the dead rows that match every given field.

    An id under which nothing is dead selects a row that waits for its next try.
    """

    service: str | None = None
    reason: str | None = None
    event_type: str | None = None
    order_id: UUID | None = None
    ids: tuple[UUID, ...] = ()

    def matches(self, work: FailedWork) -> bool:
        """Whether the row is selected; its service is not compared."""
        return (
            self.reason in {None, work.reason}
            and self.event_type in {None, work.type}
            and self.order_id in {None, work.order_id}
            and (not self.ids or work.id in self.ids)
        )


async def list_(target: Target, selection: Selection, *, each: bool, as_json: bool) -> int:
    """Prints dead rows: grouped by service, type and reason, or each on a line."""
    async with _selected(target, selection) as (_, found):
        if as_json:
            typer.echo(msgspec.json.format(msgspec.json.encode([asdict(work) for work in found])))
        elif not found:
            typer.echo("Nothing is dead.")
        elif each:
            for work in found:
                typer.echo(_line(work))
        else:
            _print_groups(found)
    return 0


async def show(target: Target, row_id: UUID, *, as_json: bool) -> int:
    """Prints whole rows, with payment methods masked. Raises NoSuchWork."""
    async with _selected(target, Selection()) as (owned, _):
        rows = [
            {"service": service, "table": table, **masked(columns), "interventions": masked(acts)}
            for service in SERVICES
            for table, columns, acts in await repository.full_rows(owned, service, row_id)
        ]
    if not rows:
        raise NoSuchWork(row_id)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(rows)))
        return 0
    for row in rows:
        for name, value in row.items():
            text = (
                value if isinstance(value, str) else msgspec.json.format(msgspec.json.encode(value)).decode()
            )
            typer.echo(f"{name + ':':<17}{text}")
        typer.echo()
    return 0


async def replay(target: Target, selection: Selection, *, named: str, dry_run: bool) -> int:
    """Has the selected rows retried now; returns 1 if some were selected and none could be.

    `named` is the operator's name, as `actor` takes it.
    """
    who = "" if dry_run else resolve_actor(named)
    async with _selected(target, selection) as (owned, found):
        able = [work for work in found if work.replayable]
        for work in found:
            if not work.replayable:
                typer.echo(f"{work.id} of {work.service} can't be decoded: only discard it.", err=True)
        done = able if dry_run else await repository.replay(owned, able, actor=who)
    _print_done(done, "would be retried" if dry_run else "is retried now")
    return 0 if done or not (found or selection.ids) else 1


async def discard(target: Target, selection: Selection, *, named: str, note: str, dry_run: bool) -> int:
    """Discards the selected events and mails; returns 1 if some were selected and none could be.

    `named` is the operator's name, as `actor` takes it; `note` is the reason.
    """
    who = "" if dry_run else resolve_actor(named)
    async with _selected(target, selection) as (owned, found):
        able = [work for work in found if work.discardable]
        for work in found:
            if not work.discardable:
                by_hand = ", or refund by hand and run 'orderflow refunds record'"
                typer.echo(
                    f"{work.id} in {work.service}'s {work.table} can't be discarded, as it is owed: replay it"
                    f"{by_hand if work.table == 'refunds' else ''}.",
                    err=True,
                )
        done = able if dry_run else await repository.discard(owned, able, actor=who, note=note)
    _print_done(done, "would be discarded" if dry_run else "is discarded")
    return 0 if done or not (found or selection.ids) else 1


@asynccontextmanager
async def _selected(
    target: Target, selection: Selection
) -> AsyncIterator[tuple[OwnerDatabase, list[FailedWork]]]:
    """The schemas and the selected rows, after importing the broker's dead letters. Raises CommandFailed."""
    services = [check_service(selection.service)] if selection.service else SERVICES
    try:
        async with connect_as_owner(target.database_url, "dead") as owned:
            if target.broker_url:
                await _import_dead_letters(owned, target.broker_url, services)
            found = [
                work
                for service in services
                for work in await repository.dead(owned, service)
                if selection.matches(work)
            ]
            if not_dead := set(selection.ids) - {work.id for work in found}:
                found += [
                    work
                    for service in services
                    for work in await repository.waiting(owned, service, not_dead)
                    if selection.matches(work)
                ]
            for row_id in set(selection.ids) - {work.id for work in found}:
                typer.echo(NoSuchWork(row_id), err=True)
            yield owned, found
    except Unavailable as error:
        raise CommandFailed(str(error)) from error


async def _import_dead_letters(owned: OwnerDatabase, broker_url: str, services: Sequence[str]) -> None:
    try:
        for service in services:
            await dead_letters.import_from_broker(owned, broker_url, service)
    except BrokerUnavailable as error:
        typer.echo(f"The broker's dead-letter queues are left out: {error}", err=True)


def _line(work: FailedWork) -> str:
    return (
        f"{work.id}  {work.service:<8}  {work.type:<17}  order {work.order_id or '-'!s:<36}  "
        f"{work.attempts} attempts, {_time(work.first_at)} to {_time(work.last_at)}  "
        f"{work.reason}: {_one_line(work.error)}"
    )


def _print_groups(found: Sequence[FailedWork]) -> None:
    key: Callable[[FailedWork], tuple[str, str, str]] = lambda work: (work.service, work.type, work.reason)  # noqa: E731
    for (service, event_type, reason), members in groupby(sorted(found, key=key), key):
        group = list(members)
        first, last = min(work.first_at for work in group), max(work.last_at for work in group)
        typer.echo(
            f"{len(group):>6}  {service:<8}  {event_type:<17}  {reason}  ({_time(first)} to {_time(last)})"
        )
        typer.echo(f"{'':8}such as {group[-1].id}: {_one_line(group[-1].error)}")


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%SZ}"


def _one_line(text: str | None) -> str:
    line = " ".join((text or "").split())
    return line if len(line) <= 200 else f"{line[:199]}…"


def _print_done(done: Sequence[FailedWork], outcome: str) -> None:
    for work in done:
        typer.echo(f"{work.id} ({work.type} at {work.service}) {outcome}.")
    if not done:
        typer.echo("Nothing was changed.")
