"""Partitions: outbox and inbox are cut into weeks by their UUIDv7 keys, made ahead and dropped whole.

A UUIDv7 begins with its time in milliseconds (RFC 9562, section 5.7), so a range of ids is a range of time.
Ids outside of every week, such as forged ones or those of a process whose clock is wrong, fall into the
default partition. When a week is made, the rows of it that are in the default partition move into it.

The SQL function `renew_partitions` (`events.migrations`) makes and drops them, by the database's clock.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar, Final, NamedTuple
from uuid import UUID

from events.transactions import Transactions

OUTBOX_LIFETIME: Final = timedelta(days=30)
"""How long after it was published a message is kept, at least. It is sent again that long."""
INBOX_LIFETIME: Final = timedelta(days=60)
"""How long after it was taken over an event is remembered, at least."""
LOCK_SECONDS: Final = 0.2
"""How long a step waits for its lock, and so how long others wait behind it."""

_STEP: Final = "SELECT act, partition_name, detail FROM renew_partitions($1, $2)"

logger = logging.getLogger(__name__)


class Step(NamedTuple):
    """What `renew_partitions` did to one partition, or why it left it as it is."""

    act: str
    """`made`, `dropped`, `kept` (rows of it are young) or `held back` (rows of it are unfinished)."""
    partition: str
    detail: str | None


async def renew(transactions: Transactions, moment: datetime | None = None) -> Sequence[Step]:
    """Makes the weeks up to three weeks ahead, then drops those that have outlived their time.

    Each partition is one short transaction, which waits at most LOCK_SECONDS for its lock. A partition that
    must not be dropped yet is in the answer as `kept` or `held back`. `moment` is for tests; it is the
    database's now.

    Raises:
        Unavailable: a lock was not to be had, or the database is away. What was done stays done.
    """
    steps: list[Step] = []
    while True:
        passed_over = [step.partition for step in steps if step.act in {"kept", "held back"}]
        async with transactions() as tx:
            await tx.execute(f"SET LOCAL lock_timeout TO '{LOCK_SECONDS * 1000:.0f}ms'")
            [record] = await tx.fetch(_STEP, passed_over, moment)
        if record["act"] is None:
            return steps
        step = Step(*record)
        logger.info("partition %s: %s%s", step.partition, step.act, f": {step.detail}" if step.detail else "")
        steps.append(step)


@dataclass
class PartitionRenewal:
    """Renews the partitions every hour, and warns of what holds a partition back."""

    name: ClassVar = "partitions"
    every: float = 3600.0
    _warned_of: set[Step] = field(default_factory=set)

    async def run(self, transactions: Transactions) -> None:
        """See Chore."""
        held_back = {step for step in await renew(transactions) if step.act == "held back"}
        for step in sorted(held_back - self._warned_of):
            logger.warning(
                "%s has outlived its time and can't be dropped: it holds %s ('orderflow stuck' and "
                "'orderflow dead list' tell more)",
                step.partition,
                step.detail,
            )
        self._warned_of = held_back


def first_id(moment: datetime) -> UUID:
    """The least UUIDv7 of that moment: what is announced from then on has a greater one."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
