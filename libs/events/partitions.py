"""Partitions: outbox and inbox are cut into weeks by their UUIDv7 keys, made ahead and dropped whole.

A UUIDv7 begins with its time in milliseconds (RFC 9562, section 5.7), so a range of ids is a range of time.
Inbox rows outlive outbox rows: whatever can still be replayed is still recognised. Ids outside of every week,
such as forged ones, fall into the default partition, which is never dropped.
"""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from events.commit import Transactions
from events.errors import Unavailable
from events.transaction import Transaction

RETENTION: Final = {"outbox": timedelta(days=30), "inbox": timedelta(days=60)}
"""How long rows are kept, at least."""
AHEAD: Final = timedelta(weeks=3)
"""How far ahead partitions are made."""
WEEK: Final = timedelta(weeks=1)
KEEP_SECONDS: Final = 6 * 3600.0

_EPOCH: Final = datetime(1970, 1, 5, tzinfo=UTC)  # a Monday

_PARTITIONS: Final = """
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = $1::regclass"""

logger = logging.getLogger(__name__)


async def keep(transactions: Transactions) -> None:
    """Makes and drops partitions, now and then every six hours, until cancelled."""
    while True:
        try:
            async with transactions() as tx:
                await renew(tx, datetime.now(UTC))
        except Unavailable as error:
            logger.warning("partitions are looked after later: %s", error)
        await asyncio.sleep(KEEP_SECONDS)


async def renew(tx: Transaction, now: datetime) -> None:
    """Makes the weeks up to AHEAD and drops those that ended before the retention time."""
    await tx.execute("SELECT pg_advisory_xact_lock(hashtext('partitions ' || current_schema))")
    for table, retention in RETENTION.items():
        existing = {record["relname"] for record in await tx.fetch(_PARTITIONS, table)}
        week = _start_of_week(now)
        while week <= now + AHEAD:
            if (name := _name(table, week)) not in existing:
                await _create(tx, table, name, first_id(week), first_id(week + WEEK))
            week += WEEK
        oldest_kept = _name(table, _start_of_week(now - retention))
        for name in sorted(existing):
            if name != f"{table}_default" and name < oldest_kept:
                await tx.execute(f"DROP TABLE {name}")
                logger.info("dropped %s: its rows are older than %s days", name, retention.days)


async def _create(tx: Transaction, table: str, name: str, first: UUID, end: UUID) -> None:
    """Makes one partition; a week of which the default partition holds rows already stays there."""
    key = "id" if table == "outbox" else "event_id"
    taken = f"SELECT 1 FROM {table}_default WHERE {key} >= $1 AND {key} < $2 LIMIT 1"  # noqa: S608
    if await tx.fetch(taken, first, end):
        logger.warning("%s was not made: rows of its time are in %s_default", name, table)
    else:
        await tx.execute(f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ('{first}') TO ('{end}')")


def _start_of_week(moment: datetime) -> datetime:
    return moment - (moment - _EPOCH) % WEEK


def _name(table: str, week: datetime) -> str:
    return f"{table}_{week:%Y%m%d}"


def first_id(moment: datetime) -> UUID:
    """The least UUIDv7 of that moment: what is announced from then on has a greater one."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
