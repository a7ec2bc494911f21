"""Partitions: outbox and inbox have a partition per week of their UUIDv7 keys, made ahead and dropped whole.

A UUIDv7 begins with its time in milliseconds (RFC 9562, section 5.7), so a range of ids is a range of time.
Rows of other weeks, from forged ids or a process with a wrong clock, are in the default partition. When a
week is made, its rows move there from the default partition.

The SQL function `renew_partitions` (`events.migrations`) makes and drops partitions by the database's clock.
It has the lifetimes below too: to change one, replace the function in every service's next migration.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar, Final, NamedTuple
from uuid import UUID

from events.transactions import Transactions

OUTBOX_LIFETIME: Final = timedelta(days=30)
"""A message is kept for at least so long after it was published, and can be sent again."""
INBOX_LIFETIME: Final = timedelta(days=60)
"""An event is remembered for at least so long after it was taken over."""
LOCK_SECONDS: Final = 0.2
"""How long a step waits for its lock, which others queue behind."""

_STEP: Final = "SELECT act, partition_name, detail FROM renew_partitions($1, $2)"

logger = logging.getLogger(__name__)


class PartitionChange(NamedTuple):
    """A partition that `renew_partitions` made, dropped or left as it is."""

    act: str
    """`made`, `dropped`, `kept` (rows of it are young) or `held back` (rows of it are unfinished)."""
    partition: str
    detail: str | None


async def renew(transactions: Transactions, moment: datetime | None = None) -> Sequence[PartitionChange]:
    """Makes the partitions of the weeks up to three weeks ahead, then drops the expired ones.

    Each partition takes one short transaction, which waits at most LOCK_SECONDS for its lock. A partition
    that must not be dropped yet is returned as `kept` or `held back`. `moment` replaces the database's clock
    in tests.

    Raises Unavailable when a lock could not be taken, or the database is away. Completed steps stay.
    """
    steps: list[PartitionChange] = []
    while True:
        passed_over = [step.partition for step in steps if step.act in {"kept", "held back"}]
        async with transactions() as tx:
            await tx.execute(f"SET LOCAL lock_timeout TO '{LOCK_SECONDS * 1000:.0f}ms'")
            [record] = await tx.fetch(_STEP, passed_over, moment)
        if record["act"] is None:
            return steps
        step = PartitionChange(*record)
        logger.info("partition %s: %s%s", step.partition, step.act, f": {step.detail}" if step.detail else "")
        steps.append(step)


@dataclass
class PartitionRenewal:
    """Renews the partitions every hour, and warns of rows that hold back an expired partition."""

    name: ClassVar = "partitions"
    every: float = 3600.0
    _warned_of: set[PartitionChange] = field(default_factory=set)

    async def run(self, transactions: Transactions) -> None:
        """See Chore."""
        held_back = {step for step in await renew(transactions) if step.act == "held back"}
        for step in sorted(held_back - self._warned_of):
            logger.warning(
                "partition %s has expired and can't be dropped: it holds %s (see 'orderflow stuck' and "
                "'orderflow dead list')",
                step.partition,
                step.detail,
            )
        self._warned_of = held_back


def first_id(moment: datetime) -> UUID:
    """The smallest UUIDv7 of that moment: later ids are greater."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
