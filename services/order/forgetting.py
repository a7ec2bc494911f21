"""Forgetting: an idempotency key is kept for a while, its order for ever."""

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from events.cleaners import HOUR, in_batches
from events.transaction import Transaction
from events.transactions import Transactions
from services.order import repository

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IdempotencyKeyCleaner:
    """Deletes idempotency keys that are older than their lifetime: asking again is then a new order."""

    lifetime: timedelta
    name: ClassVar = "idempotency keys"
    every: float = HOUR

    async def run(self, transactions: Transactions) -> None:
        """See Chore."""

        async def clean(tx: Transaction, limit: int) -> int:
            return await repository.forget_keys(tx, self.lifetime, limit)

        if count := await in_batches(transactions, clean):
            logger.info("deleted %d idempotency keys older than %d days", count, self.lifetime.days)
