"""Counts the states that a run reached, from the tables and the logs.

A run in which nothing was ever retried or given up shows little, however many faults it struck.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ops.services import SERVICES
from tests import states
from tests.faults.cluster import Cluster

_LEASED: Final = {
    "payments": "billing.payments",
    "refunds": "billing.refunds",
    "shipments": "shipment.shipments",
    "mails": "email.mails",
    "messages": "({}) AS outboxes".format(
        " UNION ALL ".join(f'SELECT attempts FROM "{service}".outbox' for service in SERVICES)
    ),
}
_PARKED: Final = " UNION ALL ".join(f'SELECT state FROM "{service}".parked' for service in SERVICES)

IN_TABLES: Final = {
    **{
        f"{work} tried again": f"SELECT count(*) FROM {table} WHERE attempts > 0"
        for work, table in _LEASED.items()
    },
    **{
        f"{work} asked again after an unknown outcome": f"SELECT count(*) FROM {table} WHERE unknowns > 0"
        for work, table in _LEASED.items()
        if work != "messages"
    },
    "payments under a further key": "SELECT count(*) FROM billing.payments WHERE generation > 1",
    "payments captured after an unknown outcome": states.CAPTURED_AFTER_UNKNOWN,
    "refunds made": states.REFUNDED,
    "refunds after an unknown charge": states.REFUNDED_AFTER_UNKNOWN,
    "orders that cost nothing": 'SELECT count(*) FROM "order".orders WHERE total = 0',
    "delays announced": 'SELECT count(*) FROM "order".delays',
    "events dead": f"SELECT count(*) FROM ({_PARKED}) AS parked WHERE state = 'dead'",
    "events waiting for a newer version": f"SELECT count(*) FROM ({_PARKED}) AS parked WHERE state = 'retry'",
    "events in default partitions": "SELECT {}".format(
        " + ".join(f'(SELECT count(*) FROM "{service}".inbox_default)' for service in SERVICES)
    ),
}
"""SQL that counts each state at the end of a run."""

IN_LOGS: Final = {
    "outages begun": ": paused",
    "outages ended": ": works again",
    "batches repeated until they committed": "the batch is repeated until it commits",
    "outcomes that waited for the database": "outcomes wait for the database",
    "claims that could not be renewed": "claims could not be renewed",
    "events parked": " parked: ",
    "events that kill their process": "KillsProcess",
    "work given up": "is given up as",
    "processes without their broker": "connection lost",
    "processes not ready for their clock": "this process is not ready",
    "partitions kept beyond their time": "has expired and can't be dropped",
}
"""The text that processes log when they reach a state."""


def count_query() -> str:
    """SQL for one row with the count of every state of IN_TABLES."""
    return "SELECT " + ", ".join(f'({query})::int8 AS "{name}"' for name, query in IN_TABLES.items())


async def reached(cluster: Cluster) -> dict[str, int]:
    """How often each state was reached, 0 included."""
    [record] = await cluster.fetch(count_query())
    logged: Counter[str] = Counter()
    for log in (replica.log for replica in cluster.replicas.values()):
        logged += counts_in(_lines(log))
    return dict(record.items()) | {name: logged[name] for name in IN_LOGS}


def counts_in(lines: Iterable[str]) -> Counter[str]:
    """How often each state of IN_LOGS is mentioned."""
    return Counter(name for line in lines for name, text in IN_LOGS.items() if text in line)


def _lines(log: Path) -> Iterable[str]:
    with log.open(encoding="utf-8", errors="replace") as file:
        yield from file
