"""The outbox: a transaction writes events to it, and the relay publishes them after the commit."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self
from uuid import UUID

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractExchange
from asyncpg import Connection, Pool

from bench.peers import business
from bench.peers.aio_pika_asyncpg import TUNING
from bench.peers.business import Event

_CONFIRM_SECONDS: Final = 10
_SWEEP_SECONDS: Final = 5
_LEFT_BEHIND: Final = """
    SELECT id, type, body FROM outbox
    WHERE service = $1 AND published_at IS NULL AND created_at < now() - interval '10 seconds'
    ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED
"""

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """An event in the outbox."""

    id: UUID
    type: str
    body: str

    @classmethod
    def of(cls, event: Event) -> Self:
        """Makes the row of a new event."""
        return cls(event.id, event.type, event.model_dump_json())


class Relay:
    """Publishes a service's outbox rows: new ones right after their commit, those of a crash in a sweep."""

    def __init__(self, service: str, pool: Pool, exchanges: dict[str, AbstractExchange]) -> None:
        self._service = service
        self._pool = pool
        self._exchanges = exchanges
        self._waiting: asyncio.Queue[Row] = asyncio.Queue()

    @classmethod
    async def on(cls, channel: AbstractChannel, service: str, pool: Pool) -> Self:
        """Makes a relay that publishes on this channel, which has publisher confirms."""
        exchanges = {type_: await channel.get_exchange(f"events.{type_}") for type_ in business.TYPES}
        return cls(service, pool, exchanges)

    async def write(self, tx: Connection, row: Row) -> None:
        """Inserts a row in its transaction."""
        await tx.execute(
            "INSERT INTO outbox (id, service, type, body) VALUES ($1, $2, $3, $4)",
            row.id,
            self._service,
            row.type,
            row.body,
        )

    def publish_soon(self, rows: Sequence[Row]) -> None:
        """Queues rows for publishing, after their transaction is committed."""
        for row in rows:
            self._waiting.put_nowait(row)

    async def run(self) -> None:
        """Publishes queued rows until it is cancelled."""
        while True:
            rows = [await self._waiting.get()]
            while len(rows) < TUNING["relay batch"] and not self._waiting.empty():
                rows.append(self._waiting.get_nowait())
            try:
                await self._mark(self._pool, await self._publish(rows))
            except Exception:  # noqa: BLE001  # the sweep publishes them
                _log.exception("Rows were not marked as published.")

    async def sweep(self) -> None:
        """Publishes rows that a crash left unpublished, until it is cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                async with self._pool.acquire() as connection, connection.transaction():
                    found = await connection.fetch(_LEFT_BEHIND, self._service, TUNING["relay batch"])
                    rows = [Row(row["id"], row["type"], row["body"]) for row in found]
                    await self._mark(connection, await self._publish(rows))
            except Exception:  # noqa: BLE001  # the next sweep tries again
                _log.exception("The outbox was not swept.")

    async def _publish(self, rows: Sequence[Row]) -> list[UUID]:
        """Publishes rows, and returns those that the broker confirmed."""
        outcomes = await asyncio.gather(*map(self._confirmed, rows), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                _log.warning("An event was not published: %r", outcome)
        return [row.id for row, outcome in zip(rows, outcomes, strict=True) if outcome is None]

    async def _confirmed(self, row: Row) -> None:
        message = Message(
            row.body.encode(),
            content_type="application/cloudevents+json",
            delivery_mode=DeliveryMode.PERSISTENT,
            message_id=str(row.id),
            type=row.type,
        )
        await self._exchanges[row.type].publish(message, routing_key="", timeout=_CONFIRM_SECONDS)

    async def _mark(self, connection: Connection | Pool, ids: Sequence[UUID]) -> None:
        if ids:
            await connection.execute("UPDATE outbox SET published_at = now() WHERE id = ANY($1)", ids)
