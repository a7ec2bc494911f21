"""A running service: its transactions, its consumer and its relay."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import aio_pika
import asyncpg
import uvloop
from aio_pika.abc import AbstractIncomingMessage
from asyncpg import Connection, Pool
from pydantic import TypeAdapter

from bench.peers.aio_pika_asyncpg import TUNING
from bench.peers.aio_pika_asyncpg.outbox import Relay, Row
from bench.peers.business import AnyEvent, Event

_EVENT: Final[TypeAdapter[Event]] = TypeAdapter(AnyEvent)
_PAUSE_SECONDS: Final = 1.0

_log: Final = logging.getLogger(__name__)


class HandledBefore(Exception):
    """The event is in the inbox already."""


class Transaction:
    """An open transaction, and the events that it announces."""

    def __init__(self, connection: Connection, relay: Relay) -> None:
        self.connection = connection
        self._relay = relay
        self.announced: list[Row] = []

    async def announce(self, event: Event) -> None:
        """Writes an event to the outbox. It is published after the commit."""
        row = Row.of(event)
        await self._relay.write(self.connection, row)
        self.announced.append(row)


class Service:
    """The connections and the relay of a running service."""

    def __init__(self, name: str, pool: Pool, relay: Relay) -> None:
        self.name = name
        self.pool = pool
        self._relay = relay

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Opens a transaction, commits it at the end of the block, and passes its events to the relay."""
        async with self.pool.acquire() as connection:
            async with connection.transaction():
                tx = Transaction(connection, self._relay)
                yield tx
            self._relay.publish_soon(tx.announced)

    @asynccontextmanager
    async def once(self, event: Event) -> AsyncIterator[Transaction]:
        """Opens a transaction that handles an event once. Raises HandledBefore."""
        async with self.transaction() as tx:
            status = await tx.connection.execute(
                "INSERT INTO inbox (service, event_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                self.name,
                event.id,
            )
            if status == "INSERT 0 0":
                raise HandledBefore
            yield tx

    @classmethod
    @asynccontextmanager
    async def running(cls, name: str, handle: "Handler") -> AsyncIterator[Self]:
        """Runs the service inside the block. The broker redelivers messages that are under way at the end."""
        url = os.environ["BROKER_URL"]
        async with (
            asyncpg.create_pool(
                os.environ["DATABASE_URL"], min_size=TUNING["pool"], max_size=TUNING["pool"], reset=_keep
            ) as pool,
            await aio_pika.connect_robust(url) as publishing,
            await aio_pika.connect_robust(url) as consuming,
        ):
            relay = await Relay.on(await publishing.channel(publisher_confirms=True), name, pool)
            service = cls(name, pool, relay)
            background = [asyncio.create_task(relay.run()), asyncio.create_task(relay.sweep())]
            channel = await consuming.channel()
            await channel.set_qos(prefetch_count=TUNING["prefetch"])
            queue = await channel.get_queue(name)
            tag = await queue.consume(service._consumer(handle))
            try:
                yield service
            finally:
                await queue.cancel(tag)
                for task in background:
                    task.cancel()

    def _consumer(self, handle: "Handler") -> Callable[[AbstractIncomingMessage], Awaitable[None]]:
        """Makes a consumer that acknowledges a message after its commit, and requeues it after a failure."""

        async def consume(message: AbstractIncomingMessage) -> None:
            async with message.process(requeue=True):
                try:
                    await handle(_EVENT.validate_json(message.body), self)
                except HandledBefore:
                    pass
                except Exception:
                    _log.exception("A message was not handled; it will come again.")
                    await asyncio.sleep(_PAUSE_SECONDS)
                    raise

        return consume


Handler = Callable[[Any, Service], Awaitable[None]]
"""Handles an event, in a transaction of `service.once(event)`."""


async def _keep(_: Connection) -> None:
    """Skips asyncpg's reset query: no statement here changes session state."""


def run(name: str, handle: Handler) -> None:
    """Runs a service without HTTP until SIGTERM."""

    async def until_sigterm() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        async with Service.running(name, handle):
            await stop.wait()

    uvloop.run(until_sigterm())
