"""`orderflow dead`: list, show, replay, discard."""

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
from ops.dead import letters, shelf
from ops.dead.masking import shown
from ops.dead.shelf import Dead
from ops.errors import CommandFailed
from ops.owner_database import OwnerDatabase, connect_as_owner
from ops.services import SERVICES, check_service
from ops.target import Target


class NotDead(CommandFailed):
    """Nothing of that id is dead, or waits for its next try."""

    def __init__(self, row_id: UUID) -> None:
        super().__init__(f"Nothing with the id {row_id} is dead, or waits for its next try.")


@dataclass(frozen=True)
class Choice:
    """Which of the dead are meant: those that every given point fits.

    An id of which nothing is dead means work that waits for its next try.
    """

    service: str | None = None
    reason: str | None = None
    event_type: str | None = None
    order_id: UUID | None = None
    ids: tuple[UUID, ...] = ()

    def fits(self, dead: Dead) -> bool:
        """Whether it is one of them."""
        return (
            self.reason in {None, dead.reason}
            and self.event_type in {None, dead.type}
            and self.order_id in {None, dead.order_id}
            and (not self.ids or dead.id in self.ids)
        )


async def list_(target: Target, choice: Choice, *, each: bool, as_json: bool) -> int:
    """Prints what is dead: grouped by failure, or each on a line."""
    async with _found(target, choice) as (_, found):
        if as_json:
            typer.echo(msgspec.json.format(msgspec.json.encode([asdict(dead) for dead in found])))
        elif not found:
            typer.echo("Nothing is dead.")
        elif each:
            for dead in found:
                typer.echo(_line(dead))
        else:
            _print_groups(found)
    return 0


async def show(target: Target, row_id: UUID, *, as_json: bool) -> int:
    """Prints whole rows, but for payment methods. Raises NotDead."""
    async with _found(target, Choice()) as (owned, _):
        rows = [
            {"service": service, "table": table, **shown(columns), "interventions": shown(acts)}
            for service in SERVICES
            for table, columns, acts in await shelf.rows(owned, service, row_id)
        ]
    if not rows:
        raise NotDead(row_id)
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


async def replay(target: Target, choice: Choice, *, named: str, dry_run: bool) -> int:
    """Puts dead work back to be done now; 1 when something was asked for and nothing could be done.

    `named` is who does it, as `actor` takes it.
    """
    who = "" if dry_run else resolve_actor(named)
    async with _found(target, choice) as (owned, found):
        able = [dead for dead in found if dead.replayable]
        for dead in found:
            if not dead.replayable:
                typer.echo(
                    f"{dead.id} of {dead.service} can't be decoded: it can only be discarded.", err=True
                )
        done = able if dry_run else await shelf.replay(owned, able, actor=who)
    _tell(done, "would be tried again" if dry_run else "is tried again now")
    return 0 if done or not (found or choice.ids) else 1


async def discard(target: Target, choice: Choice, *, named: str, note: str, dry_run: bool) -> int:
    """Gives events and mails up, with a note why; 1 when something was asked for and nothing was done.

    `named` is who does it, as `actor` takes it.
    """
    who = "" if dry_run else resolve_actor(named)
    async with _found(target, choice) as (owned, found):
        able = [dead for dead in found if dead.discardable]
        for dead in found:
            if not dead.discardable:
                by_hand = ", or do it by hand and `orderflow refunds record` it"
                typer.echo(
                    f"{dead.id} in {dead.service}'s {dead.table} is work that is owed: replay it"
                    f"{by_hand if dead.table == 'refunds' else ''}.",
                    err=True,
                )
        done = able if dry_run else await shelf.discard(owned, able, actor=who, note=note)
    _tell(done, "would be discarded" if dry_run else "is discarded")
    return 0 if done or not (found or choice.ids) else 1


@asynccontextmanager
async def _found(target: Target, choice: Choice) -> AsyncIterator[tuple[OwnerDatabase, list[Dead]]]:
    """The schemas, and the dead that are meant, also those that the broker has kept. Raises CommandFailed."""
    services = [check_service(choice.service)] if choice.service else SERVICES
    try:
        async with connect_as_owner(target.database_url, "dead") as owned:
            if target.broker_url:
                await _take_letters_in(owned, target.broker_url, services)
            found = [
                dead for service in services for dead in await shelf.dead(owned, service) if choice.fits(dead)
            ]
            if not_dead := set(choice.ids) - {dead.id for dead in found}:
                found += [
                    waiting
                    for service in services
                    for waiting in await shelf.put_off(owned, service, not_dead)
                    if choice.fits(waiting)
                ]
            for row_id in set(choice.ids) - {dead.id for dead in found}:
                typer.echo(NotDead(row_id), err=True)
            yield owned, found
    except Unavailable as error:
        raise CommandFailed(str(error)) from error


async def _take_letters_in(owned: OwnerDatabase, broker_url: str, services: Sequence[str]) -> None:
    try:
        for service in services:
            await letters.take_in(owned, broker_url, service)
    except BrokerUnavailable as error:
        typer.echo(f"What lies in the broker's dead-letter queues is left out: {error}", err=True)


def _line(dead: Dead) -> str:
    return (
        f"{dead.id}  {dead.service:<8}  {dead.type:<17}  order {dead.order_id or '-'!s:<36}  "
        f"{dead.attempts} attempts, {_moment(dead.first_at)} to {_moment(dead.last_at)}  "
        f"{dead.reason}: {_one_line(dead.error)}"
    )


def _print_groups(found: Sequence[Dead]) -> None:
    key: Callable[[Dead], tuple[str, str, str]] = lambda dead: (dead.service, dead.type, dead.reason)  # noqa: E731
    for (service, event_type, reason), members in groupby(sorted(found, key=key), key):
        group = list(members)
        first, last = min(dead.first_at for dead in group), max(dead.last_at for dead in group)
        typer.echo(
            f"{len(group):>6}  {service:<8}  {event_type:<17}  {reason}  "
            f"({_moment(first)} to {_moment(last)})"
        )
        typer.echo(f"{'':8}such as {group[-1].id}: {_one_line(group[-1].error)}")


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%SZ}"


def _one_line(text: str | None) -> str:
    line = " ".join((text or "").split())
    return line if len(line) <= 200 else f"{line[:199]}…"


def _tell(done: Sequence[Dead], fate: str) -> None:
    for dead in done:
        typer.echo(f"{dead.id} ({dead.type} at {dead.service}) {fate}.")
    if not done:
        typer.echo("Nothing was changed.")
