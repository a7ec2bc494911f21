"""One transaction: what it reads and writes, what it will announce, and what work it leaves behind."""

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg

from events.bus import Message
from events.contracts import AnyEvent


class Transaction:
    """One open database transaction. Whoever is handed one neither commits it nor touches a broker."""

    def __init__(self, driver: "asyncpg.Connection[Any]") -> None:
        self.started = asyncio.get_running_loop().time()
        self.events: list[AnyEvent] = []
        self.intents: list[Any] = []
        self.messages: Sequence[Message] = ()
        self._driver = driver

    async def fetch(self, statement: str, *arguments: object) -> "list[asyncpg.Record]":
        """Rows of a statement, by asyncpg directly."""
        return await self._driver.fetch(statement, *arguments)

    async def execute(self, statement: str, *arguments: object) -> None:
        """A statement without rows, by asyncpg directly."""
        await self._driver.execute(statement, *arguments)

    def emit(self, *events: AnyEvent) -> None:
        """Announces the events: they are written to the outbox with this transaction's commit."""
        self.events.extend(events)

    def intend(self, *intents: object) -> None:
        """Work whose rows this transaction wrote, born claimed: done from memory right after the commit."""
        self.intents.extend(intents)
