"""Quiet: the system has no work left. Every order has ended, and no row or message waits.

Every published event has also arrived: one that a queue has lost waits nowhere until reconcile resends it.
"""

import asyncio
import time
from typing import Final

from events.journey import ENDS
from ops.services import SERVICES
from ops.subscriptions import subscriptions
from tests.faults.cluster import Cluster
from tests.faults.fault import NoEffect
from tests.faults.rabbitmq import NAMES, channel

_WAITING: Final = {
    "orders without an end": f"""
        SELECT count(*) FROM "order".orders o WHERE NOT EXISTS (
            SELECT FROM "order".timeline t WHERE t.order_id = o.id AND t.type IN {ENDS})""",
    "payments pending": "SELECT count(*) FROM billing.payments WHERE state = 'pending'",
    "refunds pending": "SELECT count(*) FROM billing.refunds WHERE state = 'pending'",
    "shipments pending": "SELECT count(*) FROM shipment.shipments WHERE state = 'pending'",
    "mails pending": "SELECT count(*) FROM email.mails WHERE state = 'pending'",
    **{
        f"unpublished messages of {service}": f"""
            SELECT count(*) FROM "{service}".outbox WHERE state = 'pending'"""
        for service in SERVICES
    },
    **{
        f"events to be retried of {service}": f"""
            SELECT count(*) FROM "{service}".parked WHERE state = 'retry' AND id <> ALL($1::uuid[])"""
        for service in SERVICES
    },
}
"""$1 are the events parked for a newer version, which do not count."""


class NotQuiet(Exception):
    """The system did not become quiet."""


async def backlog(cluster: Cluster) -> dict[str, int]:
    """The work that is left, by name; empty if the system is quiet."""
    columns = ", ".join(f'({query}) AS "{name}"' for name, query in _WAITING.items())
    newer = [event.split()[1] for event in cluster.newer]
    [record] = await cluster.fetch(f"SELECT {columns}", newer)
    left = {name: count for name, count in record.items() if count}
    return left | await _queued(cluster) or await _not_arrived(cluster)


async def until_quiet(cluster: Cluster, seconds: float) -> float:
    """Waits until the system is quiet and returns the seconds. Raises NotQuiet with the work that is left."""
    began = time.monotonic()
    while True:
        left = await backlog(cluster)
        if not left:
            return time.monotonic() - began
        if time.monotonic() - began > seconds:
            waiting = ", ".join(f"{name}: {count}" for name, count in left.items())
            raise NotQuiet(f"{NotQuiet.__doc__} After {seconds:.0f} s it still had {waiting}.")
        await asyncio.sleep(1)


async def _queued(cluster: Cluster) -> dict[str, int]:
    left = {}
    try:
        async with channel(cluster) as own:
            for service in SERVICES:
                queue = await own.declare_queue(NAMES.queue(service), passive=True)
                left[f"messages for {service}"] = queue.declaration_result.message_count or 0
    except NoEffect as error:
        return {str(error): 1}
    return {name: count for name, count in left.items() if count}


async def _not_arrived(cluster: Cluster) -> dict[str, int]:
    """Events that have not arrived; called last, because it reads every outbox."""
    counts = " UNION ALL ".join(
        f"""SELECT 'events of {feed.publisher} that {feed.listener} has not received' AS name, count(*) AS n
            FROM "{feed.publisher}".outbox CROSS JOIN unnest(event_ids) AS event (id)
            WHERE state = 'published' AND type IN ({", ".join(f"'{type_}'" for type_ in feed.types)})
                AND NOT EXISTS (SELECT FROM "{feed.listener}".inbox WHERE event_id = event.id)"""
        for feed in subscriptions()
    )
    return {record["name"]: record["n"] for record in await cluster.fetch(counts) if record["n"]}


async def ended_orders(cluster: Cluster) -> int:
    """The number of orders that have ended."""
    [record] = await cluster.fetch(
        'SELECT count(*) AS n FROM "order".timeline WHERE type = ANY($1::text[])', list(ENDS)
    )
    return int(record["n"])
