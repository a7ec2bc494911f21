"""Deletes old idempotency keys. Their orders are kept."""

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
    """Deletes idempotency keys older than `lifetime`. A request that repeats one then makes a new order."""

    lifetime: timedelta
    name: ClassVar = "idempotency keys"
    every: float = HOUR

    async def run(self, transactions: Transactions) -> None:
        """See Chore."""

        async def clean(tx: Transaction, limit: int) -> int:
            return await repository.delete_expired_keys(tx, self.lifetime, limit)

        if count := await in_batches(transactions, clean):
            logger.info("deleted %d idempotency keys older than %d days", count, self.lifetime.days)
