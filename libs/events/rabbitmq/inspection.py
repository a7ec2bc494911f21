"""Inspects and purges the services' queues."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from aio_pika.abc import AbstractChannel as Channel
from aio_pika.exceptions import ChannelNotFoundEntity

from events.rabbitmq.link import OPERATION_SECONDS, opened
from events.rabbitmq.topology import Names


@dataclass(frozen=True, slots=True)
class QueueState:
    """The state of a service's queue."""

    waiting: int
    """Messages not delivered to a consumer."""
    consumers: int
    dead: int
    """Messages in the service's dead-letter queue."""


async def queues(url: str, services: Collection[str], *, prefix: str = "") -> dict[str, QueueState | None]:
    """The state of each service's queue, or None if it is missing. Raises BrokerUnavailable."""
    names = Names(prefix)
    found: dict[str, QueueState | None] = {}
    for service in services:
        queue = await _declared(url, names.queue(service))
        dead = await _declared(url, names.dead(service))
        found[service] = QueueState(*queue, dead=dead[0] if dead else 0) if queue else None
    return found


async def _declared(url: str, name: str) -> tuple[int, int] | None:
    """Messages and consumers of a queue. Uses a channel of its own, because a missing queue closes it."""
    async with opened(url, "orderflow audit") as channel:
        try:
            return await _passively(channel, name)
        except ChannelNotFoundEntity:
            return None


async def _passively(channel: Channel, name: str) -> tuple[int, int]:
    async with asyncio.timeout(OPERATION_SECONDS):
        queue = await channel.declare_queue(name, passive=True)
    result = queue.declaration_result
    return result.message_count or 0, result.consumer_count or 0


async def purge(url: str, services: Collection[str], *, prefix: str = "") -> dict[str, int]:
    """Deletes the waiting messages of the services' queues, and returns their numbers. Dead letters stay.

    The messages are still in the outboxes; reconcile sends those again that were not handled. Raises
    BrokerUnavailable.
    """
    names = Names(prefix)
    dropped: dict[str, int] = {}
    for service, state in (await queues(url, services, prefix=prefix)).items():
        if state:
            async with opened(url, "orderflow restore") as channel, asyncio.timeout(OPERATION_SECONDS):
                queue = await channel.declare_queue(names.queue(service), passive=True)
                dropped[service] = (await queue.purge()).message_count or 0
    return dropped
