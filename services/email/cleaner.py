"""Maintenance of old mails: the record of a mail is kept for ever, the event in it is not."""

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
class OldMailCleaner:
    """Removes the event from mails that are sent or refused and older than `lifetime`.

    Recipient, stage and outcome stay, and the unique key still prevents a second mail. A mail that is
    pending, or dead and may be replayed, keeps its event.
    """

    lifetime: timedelta
    name: ClassVar = "old mails"
    every: float = HOUR

    async def run(self, transactions: Transactions) -> None:
        """See Chore."""

        async def remove(tx: Transaction, limit: int) -> int:
            return await repository.remove_events(tx, self.lifetime, limit)

        if count := await in_batches(transactions, remove):
            logger.info("removed the event from %d mails older than %d days", count, self.lifetime.days)
