"""The audit itself: one moment of the database, the ledger right after it, and every check on both."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import asyncpg

from events.errors import BrokerUnavailable
from events.rabbitmq import QueueState, queues
from ops.audit import delivery, invoices, mails, money, orders
from ops.audit.check import Check
from ops.audit.delivery import WORK
from ops.audit.ledger import Ledger, LedgerCharge, LedgerRefund
from ops.audit.report import Breach, Report
from ops.errors import CommandFailed
from ops.services import SERVICES
from ops.target import Target

EXAMPLES: Final = 20
"""Most orders that are named for one breach."""

_TEMPORARY: Final = """
    CREATE TEMPORARY TABLE charges (id text, payment_id uuid, order_id uuid, amount bigint, currency text,
        succeeded boolean, created_at timestamptz, order_reference text, key_hash text);
    CREATE TEMPORARY TABLE repayments (id text, refund_id uuid, charge_id text, amount bigint,
        created_at timestamptz)"""
_FOUND: Final = """
    SELECT order_id, detail, count(*) OVER () AS count FROM ({query}) AS found
    ORDER BY order_id LIMIT {limit}"""
_DEAD: Final = "SELECT count(*) FROM \"{service}\".parked WHERE state = 'dead'"
_GIVEN_UP: Final = "SELECT count(*) FROM {table} WHERE state = 'dead'"


class RecordsUnavailable(CommandFailed):
    """The database does not answer, or does not let the auditor read."""


async def audit(target: Target, *, ledger: Ledger, quiet: bool = False, patience: float = 30.0) -> Report:
    """Checks everything that the databases, the broker and the provider's ledger can tell.

    What is younger than `patience` (seconds) may still be on its way. `quiet`: the system is said to be at
    rest, so nothing is on its way, and whatever waits is a breach. The database is read at one moment, and
    the ledger after it, so a live system gives no false alarm. Changes nothing.

    Raises:
        CommandFailed: the database, the broker or the ledger does not answer.
    """
    broker = await _broker(target.broker_url)
    backlogged = {service for service, state in broker.items() if state is None or state.waiting}
    listeners = [service for service in SERVICES if quiet or service not in backlogged]
    checks = (
        *orders.CHECKS,
        *delivery.checks(listeners, quiet=quiet),
        *money.CHECKS,
        *invoices.CHECKS,
        *mails.CHECKS,
    )
    breaches = list(_about_the_broker(broker))
    try:
        async with _one_moment(
            target.database_url, timedelta(seconds=0 if quiet else patience), quiet=quiet
        ) as connection:
            count = await connection.fetchval('SELECT count(*) FROM "order".orders')
            await _take_down(connection, ledger)
            breaches += [found for check in checks if (found := await _breach(connection, check))]
            dead = {service: await connection.fetchval(_DEAD.format(service=service)) for service in SERVICES}
            given_up = {
                name: await connection.fetchval(_GIVEN_UP.format(table=table)) for name, table in WORK.items()
            }
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise RecordsUnavailable(f"{RecordsUnavailable.__doc__} ({error})") from error
    return Report(
        orders=count,
        checked=_promises(checks),
        breaches=tuple(sorted(breaches, key=lambda breach: int(breach.invariant[1:]))),
        notes=tuple(_notes(broker, dead, given_up, listeners)),
        dead={service: number for service, number in dead.items() if number},
    )


@asynccontextmanager
async def _one_moment(
    url: str, patience: timedelta, *, quiet: bool
) -> "AsyncIterator[asyncpg.Connection[Any]]":
    """A connection in one read-only transaction that sees all schemas at one moment.

    It may be idle for as long as a provider takes to list all that it ever charged.
    """
    connection = await asyncpg.connect(
        url.replace("+asyncpg", "", 1), timeout=5, server_settings={"application_name": "orderflow audit"}
    )
    try:
        await connection.execute(
            "SET default_transaction_read_only TO off; SET work_mem TO '64MB'; SET jit TO off; "
            "SET idle_in_transaction_session_timeout TO 0"
        )
        await connection.execute(_TEMPORARY)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.execute(
                f"SET LOCAL audit.patience TO '{patience.total_seconds()} seconds'; "
                f"SET LOCAL audit.quiet TO {'on' if quiet else 'off'}"
            )
            yield connection
    finally:
        await connection.close()


async def _take_down(connection: "asyncpg.Connection[Any]", ledger: Ledger) -> None:
    """Puts the ledger beside the tables. Read after them, it has every charge that they know of."""
    await connection.execute("SELECT set_config('audit.provider', $1, true)", ledger.provider)
    for table, kind, records in (
        ("charges", LedgerCharge, await ledger.charges()),
        ("repayments", LedgerRefund, await ledger.refunds()),
    ):
        columns = list(kind.__dataclass_fields__)
        rows = [tuple(getattr(record, name) for name in columns) for record in records]
        await connection.copy_records_to_table(table, schema_name="pg_temp", columns=columns, records=rows)


async def _breach(connection: "asyncpg.Connection[Any]", check: Check) -> Breach | None:
    found = await connection.fetch(_FOUND.format(query=check.query, limit=EXAMPLES))
    if not found:
        return None
    count = found[0]["count"]
    return Breach(
        check.invariant,
        check.breach.format(count=count, detail=found[0]["detail"]),
        tuple(dict.fromkeys(row["order_id"] for row in found if row["order_id"])),
        count,
    )


def _promises(checks: Sequence[Check]) -> dict[str, str]:
    """The first promise of each invariant, in their order; several checks may stand for one."""
    promises: dict[str, str] = {}
    for check in sorted(checks, key=lambda check: int(check.invariant[1:])):
        promises.setdefault(check.invariant, check.promise)
    return promises


async def _broker(url: str | None) -> Mapping[str, QueueState | None]:
    """The state of every service's queue; None for one that is missing."""
    if url is None:
        return {}
    try:
        return await queues(url, SERVICES)
    except BrokerUnavailable as error:
        raise RecordsUnavailable(f"The broker does not tell what waits: {error}") from error


def _about_the_broker(broker: Mapping[str, QueueState | None]) -> list[Breach]:
    gone = [service for service, state in broker.items() if state is None]
    lonely = [service for service, state in broker.items() if state and not state.consumers]
    breaches = []
    if gone:
        breaches.append(Breach("I13", f"There is no queue for {', '.join(gone)}.", count=len(gone)))
    if lonely:
        breaches.append(
            Breach("I22", f"Nobody takes what arrives for {', '.join(lonely)}.", count=len(lonely))
        )
    return breaches


def _notes(
    broker: Mapping[str, QueueState | None],
    dead: Mapping[str, int],
    given_up: Mapping[str, int],
    judged: Sequence[str],
) -> list[str]:
    notes = [
        f"{state.waiting} messages wait in the queue of {service}"
        + ("." if service in judged else ": what has not arrived there was not judged.")
        for service, state in broker.items()
        if state and state.waiting
    ]
    notes += [
        f"{state.dead} messages that can't be read wait in the dead-letter queue of {service}."
        for service, state in broker.items()
        if state and state.dead
    ]
    notes += [
        f"{count} events of {service} are dead, and wait for a person: 'orderflow dead list'."
        for service, count in dead.items()
        if count
    ]
    notes += [
        f"{count} rows of work in {name} were given up, and wait for a person: 'orderflow dead list'."
        for name, count in given_up.items()
        if count
    ]
    return notes
