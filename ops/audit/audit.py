"""Runs the audit: every check on one snapshot of the database, then those against the ledger."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg

from events.connection import DRIVER_ERRORS
from events.rabbitmq import QueueState
from ops.audit import broker, delivery, invoices, mails, money, orders, temporary_tables
from ops.audit.check import SINCE, Check
from ops.audit.checker import Checker, number_of
from ops.audit.ledger import Ledger, LedgerUnavailable
from ops.audit.report import Report
from ops.errors import RecordsUnreadable
from ops.services import SERVICES
from ops.target import Target

_SET_PARAMETERS: Final = """
    SELECT set_config('audit.cutoff', (now() - $1::interval)::text, false),
        set_config('audit.quiet', $2, false), set_config('audit.since', $3, false)"""
_COUNT_ORDERS: Final = f'SELECT count(*) FROM "order".orders WHERE created_at >= {SINCE}'
_COUNT_DEAD_EVENTS: Final = "SELECT count(*) FROM \"{service}\".parked WHERE state = 'dead'"
_COUNT_DEAD: Final = "SELECT count(*) FROM {table} WHERE state = 'dead'"
_LEDGER_INVARIANTS: Final = tuple(check.invariant for check in money.LEDGER_CHECKS)


async def audit(
    target: Target,
    *,
    ledger: Ledger,
    quiet: bool = False,
    patience: float = 30.0,
    since: datetime | None = None,
) -> Report:
    """Checks the database, the broker and the provider's ledger against one another. Changes nothing.

    Work that is younger than `patience` (seconds) may be unfinished. With `quiet` the system must be at rest,
    so all unfinished work is a breach. With `since` only orders accepted since then are judged, and what
    belongs to them. The database is read in one snapshot, and the ledger after it, so a live system gives no
    false alarm.

    A part that does not answer, or can't be read, is reported as unseen; everything else is checked.

    Raises:
        CommandFailed: the database does not answer.
    """
    states, unknown = await _queue_states(target.broker_url)
    backlogged = SERVICES if unknown else tuple(name for name, state in states.items() if _has_backlog(state))
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
            checker = Checker(connection, since)
            checker.breaches += broker.breaches(states)
            if unknown:
                checker.add_unseen(unknown, *broker.PROMISES)
            copied = False
            async with checker.unseen_on_failure(*_LEDGER_INVARIANTS):
                await temporary_tables.create(connection)
                copied = True
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                await connection.execute(
                    _SET_PARAMETERS,
                    timedelta(seconds=0 if quiet else patience),
                    "on" if quiet else "off",
                    since.isoformat() if since else "-infinity",
                )
                if copied:
                    copied = False
                    async with checker.unseen_on_failure(*_LEDGER_INVARIANTS):
                        await temporary_tables.copy_records(connection, since)
                        copied = True
                await checker.run(checks)
                count = None
                async with checker.unseen_on_failure():
                    count = await connection.fetchval(_COUNT_ORDERS)
                dead = await _dead_events(checker)
                notes = [*broker.notes(states, listeners), *await _notes(checker, dead, quiet=quiet)]
            if copied:
                await _check_ledger(checker, ledger, since)
    except DRIVER_ERRORS as error:
        raise RecordsUnreadable(error) from error
    return Report(
        orders=count,
        checked=_promises((*checks, *money.LEDGER_CHECKS), queues=bool(target.broker_url)),
        breaches=tuple(sorted(checker.breaches, key=lambda breach: number_of(breach.invariant))),
        unseen=checker.unseen,
        notes=tuple(notes),
        dead=dead,
    )


@asynccontextmanager
async def _session(url: str) -> "AsyncIterator[asyncpg.Connection[Any]]":
    """A connection that writes to temporary tables only."""
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


async def _queue_states(url: str | None) -> tuple[dict[str, QueueState | None], str]:
    """The queues' states (empty without a broker), and the reason if they are unknown."""
    try:
        return (dict(await broker.queue_states(url)) if url else {}), ""
    except broker.QueuesUnknown as error:
        return {}, str(error)


def _has_backlog(state: QueueState | None) -> bool:
    return state is None or state.waiting > 0


async def _check_ledger(checker: Checker, ledger: Ledger, since: datetime | None) -> None:
    """Reads the ledger, in no transaction, and checks it against the copied records."""
    try:
        await temporary_tables.copy_ledger(checker.connection, ledger, since)
    except LedgerUnavailable as error:
        checker.add_unseen(str(error), *_LEDGER_INVARIANTS)
        return
    await checker.run(money.LEDGER_CHECKS)


async def _dead_events(checker: Checker) -> dict[str, int]:
    """The number of dead events of each service that has any."""
    dead = {}
    for service in SERVICES:
        async with checker.unseen_on_failure():
            if count := await checker.connection.fetchval(_COUNT_DEAD_EVENTS.format(service=service)):
                dead[service] = count
    return dead


async def _notes(checker: Checker, dead: dict[str, int], *, quiet: bool) -> list[str]:
    """Sentences about dead work, and about work that waits for its next retry."""
    notes = [
        f"Dead events of {service} that need a person: {count}. Run 'orderflow dead list'."
        for service, count in dead.items()
    ]
    for name, table in delivery.WORK_TABLES.items():
        async with checker.unseen_on_failure():
            if count := await checker.connection.fetchval(_COUNT_DEAD.format(table=table)):
                notes.append(f"Dead rows of {name} that need a person: {count}. Run 'orderflow dead list'.")
    async with checker.unseen_on_failure():
        if given_up := await checker.connection.fetchrow(mails.DEFERRED_TOO_LONG):
            notes.append(
                f"Mails given up because the mail server kept deferring them: {given_up['count']}; "
                f"the newest error: {given_up['error']}"
            )
    for name, query in {} if quiet else delivery.AWAITING_RETRY.items():
        async with checker.unseen_on_failure():
            if waiting := await checker.connection.fetchrow(query):
                notes.append(
                    f"Rows of {name} that wait for a retry: {waiting['count']}, the oldest since "
                    f"{waiting['since']:%Y-%m-%d %H:%M} UTC; its last error: {waiting['error']}"
                )
    return notes


def _promises(checks: Sequence[Check], *, queues: bool) -> dict[str, str]:
    """The promise of each invariant, sorted; of several checks of one invariant the first has it."""
    promises = dict(broker.PROMISES) if queues else {}
    for check in checks:
        promises.setdefault(check.invariant, check.promise)
    return {invariant: promises[invariant] for invariant in sorted(promises, key=number_of)}
