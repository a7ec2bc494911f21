"""Cleaners: rows that have outlived their time are deleted in small batches, a transaction each."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Final

from events.partitions import INBOX_LIFETIME, OUTBOX_LIFETIME
from events.transaction import Transaction
from events.transactions import Transactions

BATCH: Final = 1000
"""Most rows that one transaction deletes or changes."""
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
    """Cleans at most BATCH rows in a transaction until no more are found, and returns how many there were.

    `clean` takes a transaction and the limit, and returns how many rows it cleaned.
    """
    total = 0
    while True:
        async with transactions() as tx:
            count = await clean(tx, BATCH)
        total += count
        if count < BATCH:
            return total


async def delete(transactions: Transactions, statement: str, lifetime: timedelta) -> int:
    """Deletes by a statement that takes the lifetime and a limit, and returns a row for each deleted one."""

    async def clean(tx: Transaction, limit: int) -> int:
        return len(await tx.fetch(statement, lifetime, limit))

    return await in_batches(transactions, clean)


@dataclass(frozen=True)
class AttemptsCleaner:
    """Deletes counts of attempts at events that never came to an end and never came again."""

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
    """Deletes the record of what people did by hand, when it is old."""

    lifetime: timedelta
    name: ClassVar = "interventions"
    every: float = HOUR

    async def run(self, transactions: Transactions) -> None:
        """See Chore."""
        if count := await delete(transactions, _INTERVENTIONS, self.lifetime):
            logger.info("deleted %d interventions older than %s days", count, self.lifetime.days)


@dataclass(frozen=True)
class DefaultPartitionCleaner:
    """Deletes what has outlived its time in the default partitions, which are never dropped.

    Messages go by when they were published, inbox rows by when the event was taken over: their ids may tell
    any time. Unfinished messages stay.
    """

    name: ClassVar = "default partitions"
    every: float = HOUR

    async def run(self, transactions: Transactions) -> None:
        """See Chore."""
        messages = await delete(transactions, _OUTBOX_DEFAULT, OUTBOX_LIFETIME)
        events = await delete(transactions, _INBOX_DEFAULT, INBOX_LIFETIME)
        if messages or events:
            logger.info("deleted %d old messages and %d old inbox rows of no week", messages, events)
