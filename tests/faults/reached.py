"""What a run reached: states that the promises are about, counted in the tables and in the logs.

A run in which nothing was ever tried again or given up has shown little, however many faults were struck.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests import states
from tests.faults.cluster import Cluster
from tests.faults.quiet import SERVICES

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
    "delays announced": 'SELECT count(*) FROM "order".delays',
    "events dead": f"SELECT count(*) FROM ({_PARKED}) AS parked WHERE state = 'dead'",
    "events waiting for a newer version": f"SELECT count(*) FROM ({_PARKED}) AS parked WHERE state = 'retry'",
    "events in default partitions": "SELECT {}".format(
        " + ".join(f'(SELECT count(*) FROM "{service}".inbox_default)' for service in SERVICES)
    ),
}
"""What the tables count at the end, by state."""

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
"""What the processes say when a state is reached."""


def counts() -> str:
    """SQL for one row with the count of every state of IN_TABLES."""
    return "SELECT " + ", ".join(f'({query})::int8 AS "{name}"' for name, query in IN_TABLES.items())


async def reached(cluster: Cluster) -> dict[str, int]:
    """How often each of the states was reached; 0 for one that never was."""
    [record] = await cluster.fetch(counts())
    spoken_of: Counter[str] = Counter()
    for log in (replica.log for replica in cluster.replicas.values()):
        spoken_of += said(_lines(log))
    return dict(record.items()) | {name: spoken_of[name] for name in IN_LOGS}


def said(lines: Iterable[str]) -> Counter[str]:
    """How often each state of IN_LOGS is spoken of."""
    return Counter(name for line in lines for name, words in IN_LOGS.items() if words in line)


def _lines(log: Path) -> Iterable[str]:
    with log.open(encoding="utf-8", errors="replace") as file:
        yield from file
