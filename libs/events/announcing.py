"""Announcing: rows that have waited for over a minute become ORDER_DELAYED events."""

import logging
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Generic

from events.delays import DELAYED_AFTER, DelayFactory
from events.errors import Unavailable
from events.leases import Leases, RowT
from events.outage import Outage, now
from events.transactions import Transactions

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Announcing(Generic[RowT]):
    """Announces a row once for each reason that it waits for, whichever process holds it; in outages too."""

    name: str
    leases: Leases[RowT]
    transactions: Transactions
    outage: Outage
    delayed: DelayFactory[RowT]
    every: float
    next_at: float = field(default=-math.inf, init=False)
    """When it is due: the loop's time."""

    async def announce_if_due(self) -> None:
        """Emits the events in a transaction of its own."""
        if now() < self.next_at:
            return
        self.next_at = now() + self.every
        try:
            async with self.transactions() as tx:
                overdue = await self.leases.announce(tx, in_outage=self.outage.is_on)
                events = [self.delayed(each.row, each.why, each.since) for each in overdue]
                tx.emit(*(event for event in events if event))
        except Unavailable as error:
            logger.warning("%s: delays could not be announced: %s", self.name, error)
            return
        if overdue:
            reasons = Counter(each.why for each in overdue)
            logger.warning(
                "%s: %d rows have waited for over %.0f s: %s",
                self.name,
                len(overdue),
                DELAYED_AFTER,
                ", ".join(f"{count} {why}" for why, count in reasons.most_common()),
            )
