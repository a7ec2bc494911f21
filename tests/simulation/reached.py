"""What a schedule reached: the states that a promise is worth nothing without.

A state that no schedule reaches is one whose checks have never been made. The probes only look on.
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
from events.errors import EventsError
from events.leases import Leases
from events.outage import Outage
from events.performing import Performing
from events.splitting import commit_in_halves
from events.worker import KillsProcess, Worker
from services.billing.domain import Payment
from tests import states
from tests.simulation.database import SimulatedDatabase
from tests.simulation.fates import Fate
from tests.simulation.process import Process, current
from tests.simulation.scheduler import Defect, Step

STATES: Final = (
    "work tried again",
    "work reclaimed after a crash",
    "claim renewed",
    "claim given back",
    "put off: outage",
    "put off: postponed",
    "put off: unknown",
    "put off: defect",
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
    "default partition used",
    "a day passed",
    *(f"fate: {fate}" for fate in Fate if fate is not Fate.WELL),
)
"""Each must be reached within a thousand schedules."""

_AT_THE_END: Final = {
    "charge unknown, then captured": states.CAPTURED_AFTER_UNKNOWN,
    "refunded": states.REFUNDED,
    "refunded after an unknown charge": states.REFUNDED_AFTER_UNKNOWN,
    "default partition used": """
        SELECT sum(number)::int FROM (SELECT count(*) AS number FROM "order".inbox_default
            UNION ALL SELECT count(*) FROM invoice.inbox_default
            UNION ALL SELECT count(*) FROM billing.inbox_default
            UNION ALL SELECT count(*) FROM shipment.inbox_default
            UNION ALL SELECT count(*) FROM email.inbox_default) AS services""",
}


@contextmanager
def watching(reached: "Counter[str]") -> Iterator[None]:
    """Counts what the processes reach meanwhile."""
    holders: dict[UUID, Process | None] = {}

    def held(kept: Sequence[Any]) -> None:
        for each in kept:
            before = holders.get(each.row.id)
            reached["work reclaimed after a crash"] += before is not None and before.dead
            reached["work tried again"] += each.lease.tries.attempts > 0
            holders[each.row.id] = current()

    def deferred(_: None, self: Any, held: Any, failure: str, *__: object) -> None:
        reached[f"put off: {failure}"] += 1
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

    def seen(name: str) -> Callable[..., None]:
        def see(result: object, *_: object, **__: object) -> None:
            reached[name] += bool(result)

        return see

    def called(name: str) -> Callable[..., None]:
        def see(*_: object, **__: object) -> None:
            reached[name] += 1

        return see

    begin_alone = Worker._begin

    async def begin(self: Worker, event_id: UUID) -> None:
        reached["event tried alone"] += 1
        try:
            await begin_alone(self, event_id)
        except KillsProcess:
            reached["event that kills its process parked"] += 1
            raise

    with ExitStack() as stack:
        probes: list[tuple[Any, str, Callable[..., None]]] = [
            (Claims, "hold", lambda kept, *_: held(kept)),
            (Performing, "_defer", deferred),
            (Outage, "unavailable", seen("outage begun")),
            (Outage, "answered", seen("outage ended")),
            (Payment, "under_next_key", called("charge made under its next key")),
        ]
        for owner, name, see in probes:
            stack.enter_context(patch.object(owner, name, _after(getattr(owner, name), see)))
        probes = [
            (Leases, "renew", seen("claim renewed")),
            (Leases, "release", called("claim given back")),
            (Leases, "announce", seen("delay announced")),
            (parked, "park", called("event parked")),
            (parked, "take", seen("parked event handled")),
            (parked, "_insert", lambda _, __, rows: dead(rows)),
            (Worker, "_process_suspects", called("event redelivered")),
        ]
        for owner, name, see in probes:
            stack.enter_context(patch.object(owner, name, _after_awaiting(getattr(owner, name), see)))
        stack.enter_context(patch.object(Worker, "_begin", begin))
        for module in (worker, settling):
            stack.enter_context(patch.object(module, "commit_in_halves", split(commit_in_halves)))
        yield


async def count_the_end(
    reached: "Counter[str]", database: SimulatedDatabase, trace: Collection[object]
) -> None:
    """Adds what the rows and the trace of a finished schedule tell."""
    for name, query in _AT_THE_END.items():
        reached[name] += await database.owner.fetchval(query)
    for line in trace:
        if isinstance(line, Step):
            reached["charge looked up"] += line.what == "look up a charge"
            if line.fate is not Fate.WELL:
                reached[f"fate: {line.fate}"] += 1
        else:
            reached["a day passed"] += line == "a day passes"


@contextmanager
def catching(unforeseen: list[str], reached: "Counter[str]") -> Iterator[None]:
    """Keeps the log quiet, and the exceptions in it that no fate explains: faults of the code itself."""
    logger = logging.getLogger("events")
    catcher = _Catcher(unforeseen, reached)
    before, propagates = logging.root.manager.disable, logger.propagate
    logging.disable(logging.WARNING)
    logger.addHandler(catcher)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = propagates
        logger.removeHandler(catcher)
        logging.disable(before)


def is_foreseen(error: BaseException) -> bool:
    """Whether a fate or the database raised it."""
    return isinstance(error, EventsError | Defect | asyncpg.PostgresError)


class _Catcher(logging.Handler):
    def __init__(self, unforeseen: list[str], reached: "Counter[str]") -> None:
        super().__init__(logging.ERROR)
        self._unforeseen = unforeseen
        self._reached = reached

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return
        self._reached["commit aborted"] += type(error).__name__ in ("Aborted", "InFailedSQLTransactionError")
        if not is_foreseen(error):
            self._unforeseen.append(f"{record.getMessage()}: {error!r}")


def _after(original: Callable[..., Any], see: Callable[..., None]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        see(result, *arguments, **named)
        return result

    return call


def _after_awaiting(original: Callable[..., Awaitable[Any]], see: Callable[..., None]) -> Callable[..., Any]:
    async def call(*arguments: Any, **named: Any) -> Any:
        result = await original(*arguments, **named)
        see(result, *arguments, **named)
        return result

    return call


def of_a_fast_clock(event_id: UUID, *, weeks: int) -> UUID:
    """The id that the event had if its maker's clock were fast by so many weeks."""
    return UUID(int=event_id.int + (weeks * 7 * 86_400_000 << 80))
