"""The verdict: waits until the system is quiet, then checks everything and fills in the report."""

import time
from typing import Final

from tests.faults import checks, operator, quiet
from tests.faults.checks import Finding
from tests.faults.client import NoAnswer
from tests.faults.cluster import Cluster
from tests.faults.deliveries import remove_newer_events
from tests.faults.history import History
from tests.faults.probe import probe
from tests.faults.reached import reached
from tests.faults.report import Report, versions
from tests.faults.strikes import Strikes
from tests.faults.vitals import Vitals

_LATENCY: Final = """
    SELECT percentile_cont(ARRAY[0.5, 0.99, 1.0]) WITHIN GROUP (ORDER BY took) AS seconds
    FROM (SELECT extract(epoch FROM max(t.time) - o.created_at)::float8 AS took FROM "order".orders o
        JOIN "order".timeline t ON t.order_id = o.id GROUP BY o.id) AS each"""


async def judge(
    report: Report,
    system: Cluster,
    history: History,
    strikes: Strikes,
    vitals: Vitals,
    *,
    drain_seconds: float,
) -> None:
    """Fills in the report. A broken invariant is a finding in it, never an exception."""
    healed = time.monotonic()
    found = report.findings
    try:
        report.probe = await probe(system, history)
    except (NoAnswer, TimeoutError) as error:
        found.append(Finding("I22", f"an order did not get through after the last fault: {error!r}", 1))
    for replica in system.replicas.values():
        if replica.pid is None:
            found.append(Finding("I22", f"{replica.name} is not running", 1))
    found += [Finding("I22", violation, 1) for violation in strikes.violations]
    try:
        await quiet.until_quiet(system, drain_seconds)
        while replayed := await operator.replay_mails(system):
            report.replayed_mails += replayed
            await quiet.until_quiet(system, drain_seconds)
    except quiet.NotQuiet as restless:
        found.append(Finding("I3", str(restless), 1))
    report.drained_in = time.monotonic() - healed
    report.reached = await reached(system)
    found += await checks.newer_events(system)
    await remove_newer_events(system)
    breaches, report.figures = await check(system, history)
    report.figures["mails replayed after too many unknown outcomes"] = report.replayed_mails
    found += breaches
    found += vitals.findings()
    report.orders = history.accepted
    report.requests, report.unknown_answers = history.requests, history.unknown
    report.strikes = strikes.all
    [record] = await system.fetch(_LATENCY)
    report.latency = dict(zip(("half of them", "99 %", "the slowest"), record["seconds"], strict=True))
    report.most, report.growth, report.connections = vitals.most(), vitals.growth(), vitals.connections
    [record] = await system.fetch("SHOW server_version")
    rabbitmq = await system.rabbitmq.execute("rabbitmqctl", "--quiet", "version")
    report.versions = versions(record["server_version"].split()[0], rabbitmq.splitlines()[-1])


async def check(system: Cluster, history: History) -> tuple[list[Finding], dict[str, int]]:
    """The findings on a quiet system, and the figures of the report."""
    found = await checks.audited(system)
    found += await checks.accepted_orders(system, history)
    mails, mail_findings = await checks.mails(system, history)
    dead, dead_findings = await checks.dead(system)
    found += (
        mail_findings
        + dead_findings
        + checks.secrets_in_logs(system)
        + await checks.secrets_in_records(system)
    )
    return found, {
        "accepted orders that are lost": _count(found, "I1"),
        "orders charged twice": _count(found, "I6"),
        "gaps in invoice numbers": _count(found, "I18"),
        "orders that are stuck": sum((await quiet.backlog(system)).values()),
        "dead events": dead,
        "poison delivered": len(system.poison),
        "events of a newer version delivered": len(system.newer),
        "mails": mails.distinct,
        "second copies of mails": mails.copies,
    }


def _count(found: list[Finding], invariant: str) -> int:
    return sum(finding.count for finding in found if finding.invariant == invariant)
