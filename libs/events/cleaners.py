"""Cleaners: delete expired rows in small batches, each in a transaction of its own."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Final

from events.partitions import INBOX_LIFETIME, OUTBOX_LIFETIME
from events.transaction import Transaction
from events.transactions import Transactions

BATCH: Final = 1000
"""Most rows per transaction."""
HOUR: Final = 3600.0

_ATTEMPTS: Final = """
    DELETE FROM attempts WHERE event_id IN (
        SELECT event_id FROM attempts WHERE last_at < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED)
    RETURNING event_id"""
_INTERVENTIONS: Final = """
    DELETE FROM interventions WHERE id IN (
        SELECT id FROM interventions WHERE at < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED)
    RETURNING id"""
_OUTBOX_DEFAULT: Final = """
    DELETE FROM outbox_default WHERE id IN (
        SELECT id FROM outbox_default WHERE state = 'published' AND published_at < now() - $1::interval
        LIMIT $2 FOR UPDATE SKIP LOCKED)
    RETURNING id"""
_INBOX_DEFAULT: Final = """
    DELETE FROM inbox_default WHERE event_id IN (
        SELECT event_id FROM inbox_default WHERE received_at < now() - $1::interval
        LIMIT $2 FOR UPDATE SKIP LOCKED)
    RETURNING event_id"""

logger = logging.getLogger(__name__)


async def in_batches(transactions: Transactions, clean: Callable[[Transaction, int], Awaitable[int]]) -> int:
    """Calls `clean` in transactions of at most BATCH rows until none is left, and returns the total.

    `clean` takes a transaction and the limit, and returns the number of rows that it cleaned.
    """
    total = 0
    while True:
        async with transactions() as tx:
            count = await clean(tx, BATCH)
        total += count
        if count < BATCH:
            return total


async def delete(transactions: Transactions, statement: str, lifetime: timedelta) -> int:
    """Deletes in batches. The statement takes the lifetime and a limit, and returns the deleted rows."""

    async def clean(tx: Transaction, limit: int) -> int:
        return len(await tx.fetch(statement, lifetime, limit))

    return await in_batches(transactions, clean)


@dataclass(frozen=True)
class AttemptsCleaner:
    """Deletes old counts of attempts at events that were never finished."""

    lifetime: timedelta
    """Since the last attempt."""
    name: ClassVar = "attempts"
    every: float = HOUR

    async def run(self, transactions: Transactions) -> None:
        """See Chore."""
        if count := await delete(transactions, _ATTEMPTS, self.lifetime):
            logger.info("deleted %d counts of attempts older than %s days", count, self.lifetime.days)


@dataclass(frozen=True)
class InterventionsCleaner:
    """Deletes old interventions."""

    lifetime: timedelta
    name: ClassVar = "interventions"
    every: float = HOUR

    async def run(self, transactions: Transactions) -> None:
        """See Chore."""
        if count := await delete(transactions, _INTERVENTIONS, self.lifetime):
            logger.info("deleted %d interventions older than %s days", count, self.lifetime.days)


@dataclass(frozen=True)
class DefaultPartitionCleaner:
    """Deletes expired rows of the default partitions, which are never dropped.

    The age of a message counts from its publishing, that of an inbox row from its arrival; the time in their
    ids may be wrong. Unpublished messages stay.
    """

    name: ClassVar = "default partitions"
    every: float = HOUR

    async def run(self, transactions: Transactions) -> None:
        """See Chore."""
        messages = await delete(transactions, _OUTBOX_DEFAULT, OUTBOX_LIFETIME)
        events = await delete(transactions, _INBOX_DEFAULT, INBOX_LIFETIME)
        if messages or events:
            logger.info(
                "deleted %d old messages and %d old inbox rows from the default partitions", messages, events
            )
