"""The clock: ids contain the time of the process that makes them, so it must agree with the database's."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final

from events.transaction import Transaction
from events.transactions import Transactions

TOLERANCE: Final = timedelta(minutes=1)
"""A process whose clock differs more from the database's is not ready."""

logger = logging.getLogger(__name__)


async def offset(tx: Transaction) -> timedelta:
    """How far this process's clock is at least ahead of the database's; negative if it is behind.

    The duration of the query is not counted.
    """
    asked = datetime.now(UTC)
    [record] = await tx.fetch("SELECT clock_timestamp() AS now")
    answered = datetime.now(UTC)
    now: datetime = record["now"]
    return max(asked - now, timedelta()) or min(answered - now, timedelta())


def fault(offset: timedelta) -> str | None:
    """Describes a clock that is so far ahead; None within TOLERANCE."""
    if abs(offset) <= TOLERANCE:
        return None
    direction = "ahead of" if offset > timedelta() else "behind"
    return f"the clock is {abs(offset).total_seconds():.0f} s {direction} the database's"


@dataclass
class ClockWatch:
    """Compares the clocks every minute, and logs when they begin or cease to differ."""

    name: ClassVar = "clock"
    every: float = 60.0
    _differs: bool = False

    async def run(self, transactions: Transactions) -> None:
        """See Chore."""
        async with transactions() as tx:
            wrong = fault(await offset(tx))
        if wrong and not self._differs:
            logger.warning("this process is not ready: %s", wrong)
        if self._differs and not wrong:
            logger.info("the clock agrees with the database's again")
        self._differs = wrong is not None
