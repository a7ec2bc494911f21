"""Strikes every fault once under load; each must have its effect, and all invariants must hold at the end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from uuid_utils.compat import uuid7

from events.killpoints import KillPoint
from tests.faults import checks, postgres, quiet, rabbitmq
from tests.faults.catalogue import (
    GROUP,
    MAIL_ANSWERS,
    RUNNER,
    SERVICE_REPLICAS,
    SERVICES,
    TASKS,
    WORKER,
    killed_at,
)
from tests.faults.cluster import Cluster
from tests.faults.conftest import Run
from tests.faults.cuts import LINES, MOMENTS, Cut, CutAt, HalfOpen, Refused, Silenced, Slow
from tests.faults.deaths import Killed, KilledByMoment, Paused, ScaledOut, Sigterm
from tests.faults.deliveries import POISON_BODIES, DeliveredAgain, NewerEvent, Poison
from tests.faults.fault import Fault
from tests.faults.lanes import Pace
from tests.faults.mail_server import WrongAnswer
from tests.faults.moments import DELIVERY_UNACKNOWLEDGED, PUBLISH_UNCONFIRMED
from tests.faults.probe import probe
from tests.faults.report import Report
from tests.faults.upgrades import RolledBack
from tests.faults.verdict import check, judge

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    # Clients that are cut off while they connect leave their sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

KINDS_OF_TASK = {
    "worker": ("worker",),
    "relay": ("relay",),
    "runner": ("payments", "refunds", "bookings", "delivery"),
    "group commit": ("commit",),
}
"""Tasks that reach the same kill points, by the last word of their names."""
POINTS = {"worker": WORKER, "relay": RUNNER, "runner": RUNNER, "group commit": GROUP}

FAULTS: Sequence[Fault] = (
    *(Killed(f"{service}-1") for service in SERVICES),
    *(Sigterm(f"{service}-1") for service in SERVICES),
    *(RolledBack((replica,), 2) for replica in ("billing-1", "reconcile-1")),
    RolledBack(SERVICE_REPLICAS, 3),
    Paused("billing-1", 20),
    ScaledOut("invoice", 5),
    *(Cut(line) for line in LINES["simulated"]),
    *(Refused(line, 2) for line in LINES["simulated"]),
    *(Silenced(line, 5) for line in LINES["simulated"]),
    *(HalfOpen(line, 5) for line in ("database", "broker")),
    *(Slow(line, Pace(delay=0.2, bytes_per_second=100_000), 3) for line in ("database", "broker", "mail")),
    *(CutAt(line, moment) for line in LINES["simulated"] for moment in MOMENTS[line]),
    *(KilledByMoment("broker", moment) for moment in (PUBLISH_UNCONFIRMED, DELIVERY_UNACKNOWLEDGED)),
    postgres.Terminated(1.0),
    postgres.Restarted(by_kill=False),
    postgres.Restarted(by_kill=True),
    postgres.read_only(2),
    postgres.serializable(2),
    postgres.TooManyConnections("billing", 3),
    postgres.Locked("billing.payments", 7),
    rabbitmq.Restarted(by_kill=False),
    rabbitmq.Restarted(by_kill=True),
    rabbitmq.OutOfMemory(5),
    rabbitmq.ConnectionsClosed(),
    *(WrongAnswer(command, answer, 2) for command, answer in MAIL_ANSWERS),
    DeliveredAgain("order", 50, seed=1),
    DeliveredAgain("billing", 50, seed=2),
    *(rabbitmq.QueueDeleted(service) for service in ("invoice", "email")),
    rabbitmq.QueuePurged("billing"),
    rabbitmq.BindingGone("shipment", "PAYMENT_CONFIRMED"),
    *(Poison(service, sort) for service, sort in zip(SERVICES, POISON_BODIES, strict=True)),
    *(NewerEvent(service) for service in ("order", "billing")),
)


async def _strike(run: Run, *faults: tuple[Fault, Sequence[str]]) -> None:
    """Strikes the faults at once; each must have its effect. Then one order must get through all services."""
    struck = await asyncio.gather(
        *(run.strikes.strike(fault, fault.name, targets) for fault, targets in faults)
    )
    ineffective = [f"{strike.fault}: {strike.evidence}" for strike in struck if not strike.effective]
    assert not ineffective
    assert not run.strikes.violations
    await probe(run.system, run.history)


@pytest.mark.parametrize(("kind", "point"), [(kind, point) for kind in POINTS for point in POINTS[kind]])
async def test_orders_get_through_after_kills_at_a_kill_point(run: Run, kind: str, point: KillPoint) -> None:
    deaths = [
        killed_at("simulated", f"{service}-1", task, point)
        for service, tasks in TASKS.items()
        for task in tasks
        if task.rpartition(" ")[2] in KINDS_OF_TASK[kind]
    ]
    await _strike(run, *deaths)


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
async def test_orders_get_through_after_a_fault(run: Run, fault: Fault) -> None:
    await _strike(run, (fault, ()))


async def test_every_invariant_holds_at_the_end(run: Run) -> None:
    run.load.target = 0
    await run.placing
    report = Report(seed=1, provider="simulated")
    await judge(report, run.system, run.history, run.strikes, run.vitals, drain_seconds=180)
    page = report.write(run.system.folder)
    assert report.holds, f"{report.findings}\nThe report is in {page}."


ONE_ORDER = """(SELECT order_id FROM "order".timeline WHERE type = 'SHIPPED' ORDER BY order_id LIMIT 1)"""
DAMAGE = {
    "I1": (
        f'DELETE FROM "order".timeline WHERE order_id = {ONE_ORDER}',
        'DELETE FROM "order".orders o WHERE NOT EXISTS (SELECT FROM "order".timeline WHERE order_id = o.id)',
    ),
    "I2": (f'UPDATE "order".idempotency_keys SET order_id = {ONE_ORDER}',),
    "I3": (
        f"""UPDATE "order".timeline SET type = 'PAYMENT_FAILED'
        WHERE type = 'SHIPPED' AND order_id = {ONE_ORDER}""",
    ),
    "I5": (
        """INSERT INTO "order".idempotency_keys (key, fingerprint, order_id)
        VALUES ('never sent', '', gen_random_uuid())""",
    ),
    "I16": (
        """INSERT INTO invoice.parked (id, type, body, reason, state, claimed_until)
        VALUES (gen_random_uuid(), 'ORDER_CREATED', '{}', 'never sent', 'dead', now())""",
    ),
    "I21": (
        f"""INSERT INTO "order".timeline (order_id, event_id, type, time, facts)
        SELECT order_id, gen_random_uuid(), 'PAYMENT_REFUNDED', time, facts FROM "order".timeline
        WHERE type = 'SHIPPED' AND order_id = {ONE_ORDER}""",
    ),
    "I25": (
        """UPDATE email.mails SET last_error = 'the token is canary' WHERE order_id =
        (SELECT order_id FROM email.mails ORDER BY order_id LIMIT 1)""",
    ),
}
"""SQL that breaks each invariant that only the run's own checks can see, on a quiet system."""
EVENT_LOST = 'DELETE FROM email.inbox WHERE event_id = (SELECT event_ids[1] FROM "order".outbox LIMIT 1)'


@asynccontextmanager
async def damaged(system: Cluster, *statements: str) -> AsyncIterator[None]:
    """Damages the database for `system.fetch` only, in a transaction that is rolled back at the end."""
    await system.fetch("BEGIN")
    try:
        for statement in statements:
            await system.fetch(statement)
        yield
    finally:
        await system.fetch("ROLLBACK")


@pytest.mark.parametrize("invariant", DAMAGE)
async def test_the_checks_find_planted_damage(run: Run, invariant: str) -> None:
    before, _ = await check(run.system, run.history)
    async with damaged(run.system, *DAMAGE[invariant]):
        after, _ = await check(run.system, run.history)
    assert invariant not in {finding.invariant for finding in before}
    assert invariant in {finding.invariant for finding in after}


async def test_the_checks_find_a_lost_event_of_a_newer_version(run: Run) -> None:
    before = await checks.newer_events(run.system)
    run.system.newer.add(f"invoice {uuid7()}")
    [after] = await checks.newer_events(run.system)
    assert after.invariant == "I16"
    assert after.count == sum(finding.count for finding in before) + 1


async def test_the_system_is_not_quiet_while_an_event_has_not_arrived(run: Run) -> None:
    before = await quiet.backlog(run.system)
    async with damaged(run.system, EVENT_LOST):
        after = await quiet.backlog(run.system)
    assert not before
    assert after == {"events of order that email has not received": 1}
