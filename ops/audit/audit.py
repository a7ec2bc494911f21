"""The audit itself: one moment of the database, the ledger after it, and every check on both."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg

from events.rabbitmq import QueueState
from ops.audit import broker, copies, delivery, invoices, mails, money, orders
from ops.audit.check import SINCE, Check
from ops.audit.examination import Examination, number
from ops.audit.ledger import Ledger, LedgerUnavailable
from ops.audit.report import Report
from ops.errors import RecordsUnreadable
from ops.services import SERVICES
from ops.target import Target

_MOMENT: Final = """
    SELECT set_config('audit.settled', (now() - $1::interval)::text, false),
        set_config('audit.quiet', $2, false), set_config('audit.since', $3, false)"""
_ORDERS: Final = f'SELECT count(*) FROM "order".orders WHERE created_at >= {SINCE}'
_DEAD: Final = "SELECT count(*) FROM \"{service}\".parked WHERE state = 'dead'"
_GIVEN_UP: Final = "SELECT count(*) FROM {table} WHERE state = 'dead'"
_OF_THE_LEDGER: Final = tuple(check.invariant for check in money.AGAINST_THE_LEDGER)


async def audit(
    target: Target,
    *,
    ledger: Ledger,
    quiet: bool = False,
    patience: float = 30.0,
    since: datetime | None = None,
) -> Report:
    """Checks everything that the databases, the broker and the provider's ledger can tell.

    What is younger than `patience` (seconds) may still be on its way. `quiet`: the system is said to be at
    rest, so nothing is on its way, and whatever waits is a breach. With `since` only orders that were
    accepted since then are judged, with what belongs to them. The database is read at one moment, and the
    ledger after it, so a live system gives no false alarm. Changes nothing.

    What does not answer, or can't be read, is in the report as unseen; everything else is checked.

    Raises:
        CommandFailed: the database does not answer.
    """
    states, unknown = await _queues(target.broker_url)
    backlogged = SERVICES if unknown else tuple(name for name, state in states.items() if _waits(state))
    listeners = tuple(service for service in SERVICES if quiet or service not in backlogged)
    checks = (
        *orders.CHECKS,
        *delivery.checks(listeners, quiet=quiet),
        *money.CHECKS,
        *invoices.CHECKS,
        *mails.CHECKS,
    )
    try:
        async with _session(target.database_url) as connection:
            found = Examination(connection, since)
            found.breaches += broker.breaches(states)
            if unknown:
                found.miss(unknown, *broker.PROMISES)
            copied = False
            async with found.attempt(*_OF_THE_LEDGER):
                await copies.prepare(connection)
                copied = True
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                await connection.execute(
                    _MOMENT,
                    timedelta(seconds=0 if quiet else patience),
                    "on" if quiet else "off",
                    since.isoformat() if since else "-infinity",
                )
                if copied:
                    copied = False
                    async with found.attempt(*_OF_THE_LEDGER):
                        await copies.copy_records(connection, since)
                        copied = True
                await found.check(checks)
                count = None
                async with found.attempt():
                    count = await connection.fetchval(_ORDERS)
                dead = await _dead(found)
                notes = [*broker.notes(states, listeners), *await _notes(found, dead, quiet=quiet)]
            if copied:
                await _against_the_ledger(found, ledger, since)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise RecordsUnreadable(error) from error
    return Report(
        orders=count,
        checked=_promises((*checks, *money.AGAINST_THE_LEDGER), queues=bool(target.broker_url)),
        breaches=tuple(sorted(found.breaches, key=lambda breach: number(breach.invariant))),
        unseen=found.unseen,
        notes=tuple(notes),
        dead=dead,
    )


@asynccontextmanager
async def _session(url: str) -> "AsyncIterator[asyncpg.Connection[Any]]":
    """A connection that may fill temporary tables, and writes nothing else."""
    connection = await asyncpg.connect(
        url.replace("+asyncpg", "", 1), timeout=5, server_settings={"application_name": "orderflow audit"}
    )
    try:
        await connection.execute(
            "SET default_transaction_read_only TO off; SET work_mem TO '64MB'; SET jit TO off"
        )
        yield connection
    finally:
        await connection.close()


async def _queues(url: str | None) -> tuple[dict[str, QueueState | None], str]:
    """The queues' states, none without a broker; and why they are not known."""
    try:
        return (dict(await broker.look(url)) if url else {}), ""
    except broker.QueuesUnknown as error:
        return {}, str(error)


def _waits(state: QueueState | None) -> bool:
    return state is None or state.waiting > 0


async def _against_the_ledger(found: Examination, ledger: Ledger, since: datetime | None) -> None:
    """Reads the ledger and checks it against the copies. No transaction is open meanwhile."""
    try:
        await copies.copy_ledger(found.connection, ledger, since)
    except LedgerUnavailable as error:
        found.miss(str(error), *_OF_THE_LEDGER)
        return
    await found.check(money.AGAINST_THE_LEDGER)


async def _dead(found: Examination) -> dict[str, int]:
    """How many events are dead, of each service that has any."""
    dead = {}
    for service in SERVICES:
        async with found.attempt():
            if count := await found.connection.fetchval(_DEAD.format(service=service)):
                dead[service] = count
    return dead


async def _notes(found: Examination, dead: dict[str, int], *, quiet: bool) -> list[str]:
    """What is no breach, and worth knowing: what was given up, and what waits by its retry policy."""
    notes = [
        f"{count} events of {service} are dead, and wait for a person: 'orderflow dead list'."
        for service, count in dead.items()
    ]
    for name, table in delivery.WORK.items():
        async with found.attempt():
            if count := await found.connection.fetchval(_GIVEN_UP.format(table=table)):
                notes.append(
                    f"{count} rows of work in {name} were given up, and wait for a person: "
                    "'orderflow dead list'."
                )
    async with found.attempt():
        if refused := await found.connection.fetchrow(mails.PUT_OFF_TO_THE_END):
            notes.append(
                f"{refused['count']} mails were put off by the mail server until they were given up; "
                f"the newest after this: {refused['error']}"
            )
    for name, query in {} if quiet else delivery.PATIENT.items():
        async with found.attempt():
            if waiting := await found.connection.fetchrow(query):
                notes.append(
                    f"{waiting['count']} rows of work in {name} wait for their next try, the first since "
                    f"{waiting['since']:%Y-%m-%d %H:%M} UTC, after this: {waiting['error']}"
                )
    return notes


def _promises(checks: Sequence[Check], *, queues: bool) -> dict[str, str]:
    """The first promise of each invariant, in their order; several checks may stand for one."""
    promises = dict(broker.PROMISES) if queues else {}
    for check in checks:
        promises.setdefault(check.invariant, check.promise)
    return {invariant: promises[invariant] for invariant in sorted(promises, key=number)}
