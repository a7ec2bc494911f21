"""Consuming: one service's share of its queue, through every loss of the connection."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final
from uuid import uuid4

from aio_pika.abc import AbstractChannel as Channel
from aio_pika.abc import AbstractIncomingMessage as IncomingMessage
from aio_pika.abc import AbstractQueue as Queue

from events.bus import Delivery
from events.errors import BrokerUnavailable, Postponed, UnknownOutcome
from events.rabbitmq.link import OPERATION_SECONDS, Link, errors_as
from events.rabbitmq.publisher import Publisher
from events.rabbitmq.topology import Names, declare_service

PREFETCH: Final = 64
"""Two of the worker's batches: while it commits one, the next is on its way."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Tag:
    """A delivery's number means something on the channel that it came by, and on no other."""

    channel: Channel
    number: int
    message: IncomingMessage


class QueueSubscription:
    """One consumer of a service's queue. Keeps the promises of `events.bus.Subscription`."""

    def __init__(
        self,
        url: str,
        names: Names,
        publisher: Publisher,
        service: str,
        types: Collection[str],
        *,
        check_seconds: float,
    ) -> None:
        self._service = service
        self._types = tuple(types)
        self._names = names
        self._publisher = publisher
        self._link = Link(
            url,
            f"orderflow {service}",
            prepare=self._consume,
            check=self._check,
            check_seconds=check_seconds,
        )
        self._channel: Channel | None = None
        self._consuming = False
        self._outstanding: dict[int, IncomingMessage] = {}
        """This channel's deliveries that are not settled, by their number, in their order."""
        self._waiting: deque[Delivery] = deque()
        self._unburied: list[Delivery] = []
        self._arrived = asyncio.Event()

    def running(self) -> AbstractAsyncContextManager[None]:
        """Consumes while the context is open; what is unacknowledged at its end goes back to the queue."""
        return self._link.running()

    async def take(self, limit: int) -> Sequence[Delivery]:
        """At least one delivery, and what else is waiting up to `limit`."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """They are done. What came by a channel that is lost comes again."""

        async def ack(message: IncomingMessage, multiple: bool) -> None:
            await message.ack(multiple=multiple)

        await self._settle(deliveries, ack)

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """They go back to where they stood in the queue."""

        async def nack(message: IncomingMessage, multiple: bool) -> None:
            await message.nack(multiple=multiple, requeue=True)

        await self._settle(deliveries, nack)

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """Moves the message to the dead-letter queue; when that fails it is given back at the next check."""
        message = _tag_of(delivery).message
        headers: dict[str, str | int] = {
            "reason": reason,
            "type": str(message.headers.get("type", "unknown")),
            "time": datetime.now(UTC).isoformat(),
        }
        try:
            await self._publisher.publish(
                delivery.body,
                exchange="",
                routing_key=self._names.dead(self._service),
                message_id=str(uuid4()),
                content_type=message.content_type or "application/octet-stream",
                headers=headers,
            )
        except (BrokerUnavailable, Postponed, UnknownOutcome) as error:
            logger.warning("%s: a message could not be buried, it will come again: %s", self._service, error)
            self._unburied.append(delivery)
        else:
            await self.acknowledge([delivery])

    # The channel

    async def _consume(self, channel: Channel) -> None:
        queue = await self._declare(channel)
        await channel.set_qos(prefetch_count=PREFETCH)
        self._channel = channel
        self._outstanding.clear()
        self._waiting.clear()
        self._unburied.clear()
        (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(self._cancelled)
        self._consuming = True
        await queue.consume(partial(self._deliver, channel))

    async def _check(self, channel: Channel) -> None:
        if not self._consuming:  # it was cancelled before the link knew of this channel
            self._link.give_up(channel)
            return
        await self._declare(channel)
        unburied, self._unburied = self._unburied, []
        await self.give_back(unburied)

    async def _declare(self, channel: Channel) -> Queue:
        return await declare_service(channel, self._names, self._service, self._types)

    async def _deliver(self, channel: Channel, message: IncomingMessage) -> None:
        number = message.delivery_tag
        if channel is not self._channel or number is None:
            return
        redelivered = bool(message.redelivered) or bool(message.headers.get("x-delivery-count", 0))
        self._outstanding[number] = message
        self._waiting.append(Delivery(message.body, redelivered, _Tag(channel, number, message)))
        self._arrived.set()

    def _cancelled(self, _: object) -> None:
        """The server ended the consumer: its queue was deleted, or moved to another node."""
        logger.warning("%s: the server cancelled the consumer; it is made anew", self._service)
        self._consuming = False
        if self._channel:
            self._link.give_up(self._channel)

    async def _settle(
        self, deliveries: Sequence[Delivery], settle: Callable[[IncomingMessage, bool], Awaitable[None]]
    ) -> None:
        """Settles what came by the present channel: in one frame as far as nothing else lies between."""
        channel = self._channel
        tags = [_tag_of(delivery) for delivery in deliveries]
        numbers = {tag.number for tag in tags if tag.channel is channel} & self._outstanding.keys()
        if channel is None or not numbers:
            return
        through = 0
        for number in self._outstanding:
            if number not in numbers:
                break
            through = number
        settled = {number: self._outstanding.pop(number) for number in sorted(numbers)}
        try:
            with errors_as(BrokerUnavailable):
                async with asyncio.timeout(OPERATION_SECONDS):
                    if through:
                        await settle(settled[through], True)
                    for number, message in settled.items():
                        if number > through:
                            await settle(message, False)
        except BrokerUnavailable as error:
            logger.warning("%s: deliveries were not settled, they will come again: %s", self._service, error)
            self._link.give_up(channel)


def _tag_of(delivery: Delivery) -> _Tag:
    assert isinstance(delivery.tag, _Tag)
    return delivery.tag
