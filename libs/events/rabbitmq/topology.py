"""The broker's topology: an exchange for each event type, two queues for each service."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel as Channel
from aio_pika.abc import AbstractQueue as Queue
from aio_pika.exceptions import ChannelPreconditionFailed

from events.contracts import TYPES
from events.errors import BrokerUnavailable, EventsError
from events.rabbitmq.link import OPERATION_SECONDS, errors_as, opened

DELIVERY_LIMIT: Final = 1000
"""Deliveries after which the broker dead-letters a message that is never acknowledged: a last resort.

The worker parks events that it can't handle long before. Lost connections count as deliveries too, so the
limit is far above the number of them in an hour.
"""
_NO_LIMIT: Final = 1_000_000  # the default of 4.x is 20, and 3.10 refuses -1


class TopologyConflict(EventsError):
    """The broker has a queue or exchange of that name with other properties: it must be deleted first."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of exchanges and queues. Systems with different prefixes can share a broker."""

    prefix: str = ""

    def exchange(self, event_type: str) -> str:
        """The exchange that events of a type are published to: `OrderEvents.ORDER_CREATED`."""
        return f"{self.prefix}OrderEvents.{event_type}"

    def queue(self, service: str) -> str:
        """The queue that all consumers of a service share: `orderflow.invoice`."""
        return f"{self.prefix}orderflow.{service}"

    def dead(self, service: str) -> str:
        """The dead-letter queue of a service: `orderflow.invoice.dead`."""
        return f"{self.queue(service)}.dead"


async def declare(url: str, bindings: Mapping[str, Collection[str]], *, prefix: str = "") -> None:
    """Declares the whole topology: `bindings` names the event types that each service listens to.

    Call it before anything is published: an exchange also confirms messages for a queue that is not bound
    yet. It is safe to repeat, also on a live system. It unbinds a service's queue from types that `bindings`
    does not name. Running processes never unbind, because an older version of a service may run beside a
    newer one.

    Raises BrokerUnavailable when the broker does not answer, TopologyConflict when a name is taken by a queue
    or exchange with other properties.
    """
    names = Names(prefix)
    async with opened(url, "orderflow migrate") as channel:
        with errors_as(BrokerUnavailable):
            try:
                await declare_exchanges(channel, names)
                for service, types in bindings.items():
                    async with asyncio.timeout(OPERATION_SECONDS):
                        queue = await declare_service(channel, names, service, types)
                        for event_type in set(TYPES) - set(types):
                            await queue.unbind(names.exchange(event_type))
            except ChannelPreconditionFailed as error:
                raise TopologyConflict(f"{TopologyConflict.__doc__} ({error})") from error


async def declare_exchanges(channel: Channel, names: Names) -> None:
    """Declares the exchanges of all event types."""
    for event_type in TYPES:
        await channel.declare_exchange(names.exchange(event_type), ExchangeType.FANOUT, durable=True)


async def declare_service(channel: Channel, names: Names, service: str, types: Collection[str]) -> Queue:
    """Declares a service's two queues and its bindings, and returns its queue."""
    dead = await _declare_queue(channel, names.dead(service), {"x-delivery-limit": _NO_LIMIT})
    backstop = {
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead.name,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # required by at-least-once
    }
    queue = await _declare_queue(channel, names.queue(service), backstop)
    for event_type in types:
        await queue.bind(names.exchange(event_type))
    return queue


async def _declare_queue(channel: Channel, name: str, arguments: dict[str, Any]) -> Queue:
    quorum = {"x-queue-type": "quorum", **arguments}
    return await channel.declare_queue(name, durable=True, arguments=quorum)
