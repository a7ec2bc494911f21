"""Counts the states that a schedule reaches.

A promise about a state that no schedule reaches is not tested. The probes change nothing.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest.mock import patch
from uuid import UUID

import asyncpg

from events import parked, settling, worker
from events.claims import Claims
from events.contracts import NO_PROVIDER
from events.errors import EventsError
from events.leases import Leases
from events.outage import Outage
from events.performing import Performing
from events.splitting import commit_in_halves
from events.worker import KillsProcess, Worker
from services.billing.domain import Payment
from tests import states
from tests.simulation.database import SimulatedDatabase
from tests.simulation.endings import Ending
from tests.simulation.process import Process, current
from tests.simulation.scheduler import Defect, Step

STATES: Final = (
    "work retried",
    "work reclaimed after a crash",
    "claim renewed",
    "claim released",
    "deferred: outage",
    "deferred: postponed",
    "deferred: unknown",
    "deferred: defect",
    "work given up",
    "given up work replayed",
    "outage begun",
    "outage ended",
    "delay announced",
    "batch split",
    "commit aborted",
    "event redelivered",
    "event tried alone",
    "event parked",
    "parked event handled",
    "event dead",
    "event that kills its process parked",
    "charge looked up",
    "charge made under its next key",
    "charge unknown, then captured",
    "refunded",
    "refunded after an unknown charge",
    "order of 0 paid",
    "order of 0 refunded",
    "default partition used",
    "a day passed",
    *(f"ending: {ending}" for ending in Ending if ending is not Ending.WELL),
)
"""A thousand schedules must reach each of them."""

_FINAL_STATES: Final = {
    "charge unknown, then captured": states.CAPTURED_AFTER_UNKNOWN,
    "refunded": states.REFUNDED,
    "refunded after an unknown charge": states.REFUNDED_AFTER_UNKNOWN,
    "order of 0 paid": f"SELECT count(*) FROM billing.payments WHERE provider = '{NO_PROVIDER}'",
    "order of 0 refunded": "SELECT count(*) FROM billing.refunds WHERE amount = 0",
    "default partition used": """
        SELECT sum(number)::int FROM (SELECT count(*) AS number FROM "order".inbox_default
            UNION ALL SELECT count(*) FROM invoice.inbox_default
            UNION ALL SELECT count(*) FROM billing.inbox_default
            UNION ALL SELECT count(*) FROM shipment.inbox_default
            UNION ALL SELECT count(*) FROM email.inbox_default) AS services""",
}


@contextmanager
def counting(reached: "Counter[str]") -> Iterator[None]:
    """Counts the states that processes reach while the context is open."""
    holders: dict[UUID, Process | None] = {}

    def held(rows: Sequence[Any]) -> None:
        for each in rows:
            holder = holders.get(each.row.id)
            reached["work reclaimed after a crash"] += holder is not None and holder.dead
            reached["work retried"] += each.lease.tries.attempts > 0
            holders[each.row.id] = current()

    def deferred(_: None, self: Any, held: Any, failure: str, *__: object) -> None:
        reached[f"deferred: {failure}"] += 1
        reached["work given up"] += self.policy.verdict(failure, held.lease.tries) is not None

    def dead(rows: Sequence[Any]) -> None:
        reached["event dead"] += sum(row[5] == "dead" for row in rows)

    def split(
        original: Callable[..., Awaitable[list[Any]]],
    ) -> Callable[..., Awaitable[list[Any]]]:
        async def in_halves(items: Sequence[Any], commit: Any, *rest: Any) -> list[Any]:
            async def commit_some(some: Sequence[Any]) -> Any:
                reached["batch split"] += len(some) < len(items)
                return await commit(some)

            return await original(items, commit_some, *rest)

        return in_halves

    def returned(name: str) -> Callable[..., None]:
        def probe(result: object, *_: object, **__: object) -> None:
            reached[name] += bool(result)

        return probe

    def called(name: str) -> Callable[..., None]:
        def probe(*_: object, **__: object) -> None:
            reached[name] += 1

        return probe

    original_begin = Worker._begin

    async def begin(self: Worker, event_id: UUID) -> None:
        reached["event tried alone"] += 1
        try:
            await original_begin(self, event_id)
        except KillsProcess:
            reached["event that kills its process parked"] += 1
            raise

    with ExitStack() as stack:
        probes: list[tuple[Any, str, Callable[..., None]]] = [
            (Claims, "hold", lambda rows, *_: held(rows)),
            (Performing, "_defer", deferred),
            (Outage, "unavailable", returned("outage begun")),
            (Outage, "answered", returned("outage ended")),
            (Payment, "under_next_key", called("charge made under its next key")),
        ]
        for owner, name, probe in probes:
            stack.enter_context(patch.object(owner, name, _after(getattr(owner, name), probe)))
        probes = [
            (Leases, "renew", returned("claim renewed")),
            (Leases, "release", called("claim released")),
            (Leases, "announce", returned("delay announced")),
            (parked, "park", called("event parked")),
            (parked, "take", returned("parked event handled")),
            (parked, "_insert", lambda _, __, rows: dead(rows)),
            (Worker, "_process_redelivered", called("event redelivered")),
        ]
        for owner, name, probe in probes:
            stack.enter_context(patch.object(owner, name, _after_awaiting(getattr(owner, name), probe)))
        stack.enter_context(patch.object(Worker, "_begin", begin))
        for module in (worker, settling):
            stack.enter_context(patch.object(module, "commit_in_halves", split(commit_in_halves)))
        yield


async def count_final_states(
    reached: "Counter[str]", database: SimulatedDatabase, trace: Collection[object]
) -> None:
    """Adds the states that the rows and the trace of a finished schedule show."""
    for name, query in _FINAL_STATES.items():
        reached[name] += await database.owner.fetchval(query)
    for line in trace:
        if isinstance(line, Step):
            reached["charge looked up"] += line.what == "look up a charge"
            if line.ending is not Ending.WELL:
                reached[f"ending: {line.ending}"] += 1
        else:
            reached["a day passed"] += line == "a day passes"


@contextmanager
def collecting_errors(unexpected: list[str], reached: "Counter[str]") -> Iterator[None]:
    """Silences the log, and collects its exceptions that no simulated ending explains: defects."""
    logger = logging.getLogger("events")
    collector = _ErrorCollector(unexpected, reached)
    before, propagates = logging.root.manager.disable, logger.propagate
    logging.disable(logging.WARNING)
    logger.addHandler(collector)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = propagates
        logger.removeHandler(collector)
        logging.disable(before)


def is_expected(error: BaseException) -> bool:
    """Whether a simulated ending or the database raised it."""
    return isinstance(error, EventsError | Defect | asyncpg.PostgresError)


class _ErrorCollector(logging.Handler):
    def __init__(self, unexpected: list[str], reached: "Counter[str]") -> None:
        super().__init__(logging.ERROR)
        self._unforeseen = unexpected
        self._reached = reached

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return
        self._reached["commit aborted"] += type(error).__name__ in ("Aborted", "InFailedSQLTransactionError")
        if not is_expected(error):
            self._unforeseen.append(f"{record.getMessage()}: {error!r}")


def _after(original: Callable[..., Any], probe: Callable[..., None]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        probe(result, *arguments, **named)
        return result

    return call


def _after_awaiting(
    original: Callable[..., Awaitable[Any]], probe: Callable[..., None]
) -> Callable[..., Any]:
    async def call(*arguments: Any, **named: Any) -> Any:
        result = await original(*arguments, **named)
        probe(result, *arguments, **named)
        return result

    return call


def id_of_fast_clock(event_id: UUID, *, weeks: int) -> UUID:
    """The id that the event would have if its maker's clock were fast by so many weeks."""
    return UUID(int=event_id.int + (weeks * 7 * 86_400_000 << 80))
