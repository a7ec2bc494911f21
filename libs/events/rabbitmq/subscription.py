"""Consuming: one consumer of a service's queue, which survives lost connections."""

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
"""Two of the worker's batches: the next one arrives while one is committed."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Tag:
    """A delivery tag is valid only on the channel of the delivery."""

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
        """Unsettled deliveries of the present channel by their number, in order."""
        self._waiting: deque[Delivery] = deque()
        self._not_dead_lettered: list[Delivery] = []
        self._arrived = asyncio.Event()

    def running(self) -> AbstractAsyncContextManager[None]:
        """Consumes until the context ends. Unacknowledged deliveries return to the queue then."""
        return self._link.running()

    async def take(self, limit: int) -> Sequence[Delivery]:
        """See Subscription."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """See Subscription. Deliveries of a lost channel are delivered again."""

        async def ack(message: IncomingMessage, multiple: bool) -> None:
            await message.ack(multiple=multiple)

        await self._settle(deliveries, ack)

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """See Subscription. The deliveries keep their places in the queue."""

        async def nack(message: IncomingMessage, multiple: bool) -> None:
            await message.nack(multiple=multiple, requeue=True)

        await self._settle(deliveries, nack)

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """See Subscription. A message that can't be moved now is given back at the next check."""
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
            logger.warning(
                "%s: a message could not be dead-lettered, it will be delivered again: %s",
                self._service,
                error,
            )
            self._not_dead_lettered.append(delivery)
        else:
            await self.acknowledge([delivery])

    # The channel

    async def _consume(self, channel: Channel) -> None:
        queue = await self._declare(channel)
        await channel.set_qos(prefetch_count=PREFETCH)
        self._channel = channel
        self._outstanding.clear()
        self._waiting.clear()
        self._not_dead_lettered.clear()
        (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(self._cancelled)
        self._consuming = True
        await queue.consume(partial(self._deliver, channel))

    async def _check(self, channel: Channel) -> None:
        if not self._consuming:  # cancelled before the link had this channel
            self._link.reopen(channel)
            return
        await self._declare(channel)
        given_back, self._not_dead_lettered = self._not_dead_lettered, []
        await self.give_back(given_back)

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
        """The server cancelled the consumer: its queue was deleted, or moved to another node."""
        logger.warning("%s: the server cancelled the consumer; it subscribes again", self._service)
        self._consuming = False
        if self._channel:
            self._link.reopen(self._channel)

    async def _settle(
        self, deliveries: Sequence[Delivery], settle: Callable[[IncomingMessage, bool], Awaitable[None]]
    ) -> None:
        """Settles deliveries of the present channel, a contiguous range at the front in one frame."""
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
            logger.warning(
                "%s: deliveries were not settled, they will be delivered again: %s", self._service, error
            )
            self._link.reopen(channel)


def _tag_of(delivery: Delivery) -> _Tag:
    assert isinstance(delivery.tag, _Tag)
    return delivery.tag
