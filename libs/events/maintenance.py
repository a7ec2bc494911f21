"""Maintenance: the chores of a service beside its work, such as dropping what has outlived its time."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from events.errors import Unavailable
from events.transactions import Transactions

AGAIN_SECONDS: Final = (30.0, 60.0)
"""A chore that could not be done is tried again after a time between these."""
JITTER: Final = 0.2
"""So much sooner or later than `every` a chore is done, so that processes don't do it at the same time."""

logger = logging.getLogger(__name__)


class Chore(Protocol):
    """One kind of maintenance. Any number of processes may do it at the same time."""

    @property
    def name(self) -> str:
        """What it looks after, for the log."""
        ...

    @property
    def every(self) -> float:
        """Seconds between two runs."""
        ...

    async def run(self, transactions: Transactions) -> None:
        """Does what is due, in short transactions. Raises Unavailable when it could not do all of it."""
        ...


class Maintenance:
    """Does a service's chores, each at its own pace. A chore that fails never stops the service."""

    def __init__(
        self,
        service: str,
        transactions: Transactions,
        chores: Sequence[Chore],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._service = service
        self._transactions = transactions
        self.chores = chores
        self._sleep = sleep

    async def run(self) -> None:
        """Does every chore at once and then again when it is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for chore in self.chores:
                group.create_task(self._keep(chore), name=f"{self._service} {chore.name} upkeep")

    async def run_once(self) -> None:
        """Does every chore once, one after the other."""
        for chore in self.chores:
            await self._done(chore)

    async def _keep(self, chore: Chore) -> None:
        while True:
            if await self._done(chore):
                least, most = chore.every * (1 - JITTER), chore.every * (1 + JITTER)
            else:
                least, most = AGAIN_SECONDS
            await self._sleep(random.uniform(least, most))  # noqa: S311  # no secret

    async def _done(self, chore: Chore) -> bool:
        """Whether the chore could be done."""
        try:
            await chore.run(self._transactions)
        except Unavailable as error:
            logger.warning("%s: %s: done later: %s", self._service, chore.name, error)
            return False
        except Exception:
            logger.exception("%s: %s: failed, tried again later", self._service, chore.name)
            return False
        return True
