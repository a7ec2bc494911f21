"""Maintenance: periodic chores of a service, such as deleting expired rows."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from events.errors import Unavailable
from events.transactions import Transactions

AGAIN_SECONDS: Final = (30.0, 60.0)
"""The range of the pause after which a failed chore is tried again."""
JITTER: Final = 0.2
"""Varies `every` by up to this fraction, so that processes do not run a chore at the same time."""

logger = logging.getLogger(__name__)


class Chore(Protocol):
    """One kind of maintenance. Several processes may run it at the same time."""

    @property
    def name(self) -> str:
        """Its name in the log."""
        ...

    @property
    def every(self) -> float:
        """Seconds between two runs."""
        ...

    async def run(self, transactions: Transactions) -> None:
        """Does everything that is due, in short transactions. Raises Unavailable if something is left."""
        ...


class Maintenance:
    """Runs a service's chores, each with its own period. A failing chore never stops the service."""

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
        """Runs every chore now, and again whenever it is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for chore in self.chores:
                group.create_task(self._keep(chore), name=f"{self._service} {chore.name} upkeep")

    async def run_once(self) -> None:
        """Runs every chore once, one after the other."""
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
        """Runs the chore, and returns whether it succeeded."""
        try:
            await chore.run(self._transactions)
        except Unavailable as error:
            logger.warning(
                "%s: %s: could not be done now, tried again later: %s", self._service, chore.name, error
            )
            return False
        except Exception:
            logger.exception("%s: %s: failed, tried again later", self._service, chore.name)
            return False
        return True
