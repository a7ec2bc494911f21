"""Emptying: a mail's record is kept for ever, the event that it told of is not."""

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from events.cleaners import HOUR, in_batches
from events.transaction import Transaction
from events.transactions import Transactions
from services.email import repository

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MailEmptier:
    """Takes the event out of mails that were written longer ago than `lifetime` and have come to their end.

    What stays is to whom, about what, and how it ended; its unique key still keeps a second mail away.
    A mail that is still to be sent, or dead and perhaps replayed, keeps its event.
    """

    lifetime: timedelta
    name: ClassVar = "old mails"
    every: float = HOUR

    async def run(self, transactions: Transactions) -> None:
        """See Chore."""

        async def empty(tx: Transaction, limit: int) -> int:
            return await repository.empty(tx, self.lifetime, limit)

        if count := await in_batches(transactions, empty):
            logger.info("took the event out of %d mails older than %d days", count, self.lifetime.days)
