"""Publishing: every message persistent, mandatory and confirmed, with a deadline of our own."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Final

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel as Channel
from aio_pika.exceptions import ChannelNotFoundEntity, DeliveryError, PublishError

from events.errors import BrokerUnavailable, UnknownOutcome, Unroutable
from events.rabbitmq.link import Link, errors_as
from events.rabbitmq.topology import Names, declare_exchanges

PUBLISH_SECONDS: Final = 8.0
"""Deadline of a publish; it ends before the relay's own."""


class Publisher:
    """Publishes on a connection of its own: a broker short of memory or disk blocks those that publish."""

    def __init__(self, url: str, names: Names, *, check_seconds: float) -> None:
        async def declare(channel: Channel) -> None:
            await declare_exchanges(channel, names)

        self._link = Link(
            url, "orderflow publisher", prepare=declare, check=declare, check_seconds=check_seconds
        )

    def running(self) -> AbstractAsyncContextManager[None]:
        """Connected, or trying to be, while the context is open."""
        return self._link.running()

    async def publish(
        self,
        body: bytes,
        *,
        exchange: str,
        routing_key: str = "",
        message_id: str,
        content_type: str,
        headers: dict[str, str | int],
    ) -> None:
        """Returns when the broker has the message for good, in every queue it is bound for.

        Raises BrokerUnavailable, Unroutable or UnknownOutcome, as `events.bus.Bus.publish` does.
        """
        message = Message(
            body,
            content_type=content_type,
            delivery_mode=DeliveryMode.PERSISTENT,
            message_id=message_id,
            headers=dict(headers),
        )
        channel = await self._unblocked_channel()
        with errors_as(UnknownOutcome):
            try:
                async with asyncio.timeout(PUBLISH_SECONDS):
                    target = await channel.get_exchange(exchange, ensure=False)
                    await target.publish(message, routing_key, mandatory=True)
            except PublishError as returned:
                raise Unroutable from returned
            except DeliveryError as refused:
                raise BrokerUnavailable from refused

    async def ready_in(self, queue: str) -> int:
        """How many messages wait in a queue. Raises BrokerUnavailable, or Unroutable when it is not there.

        Asked on a channel of its own, because the server closes the one on which a missing queue is named.
        """
        with errors_as(BrokerUnavailable):
            async with asyncio.timeout(PUBLISH_SECONDS):
                underlay = await (await self._unblocked_channel()).get_underlay_channel()
                channel = await underlay.connection.channel()
                try:
                    declared = await channel.queue_declare(queue, passive=True)
                except ChannelNotFoundEntity as missing:
                    raise Unroutable(f"There is no queue {queue}.") from missing
                finally:
                    await channel.close()
                return declared.message_count or 0

    async def _unblocked_channel(self) -> Channel:
        with errors_as(BrokerUnavailable):
            async with asyncio.timeout(PUBLISH_SECONDS):
                channel = await self._link.channel()
                await (await channel.get_underlay_channel()).connection.ready()
                return channel
