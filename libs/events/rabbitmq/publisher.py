"""Publishing: every message is persistent, mandatory and confirmed, with a time limit."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Final

import aio_pika
from aio_pika import DeliveryMode
from aio_pika.abc import AbstractChannel as Channel
from aio_pika.exceptions import ChannelNotFoundEntity, DeliveryError, PublishError

from events.errors import BrokerUnavailable, UnknownOutcome, Unroutable
from events.rabbitmq.link import Link, errors_as
from events.rabbitmq.topology import Names, declare_exchanges

PUBLISH_SECONDS: Final = 8.0
"""Time limit of a publish; shorter than the relay's."""


class Publisher:
    """Publishes on a connection of its own: a broker short of memory or disk blocks publishers."""

    def __init__(self, url: str, names: Names, *, check_seconds: float) -> None:
        async def declare(channel: Channel) -> None:
            await declare_exchanges(channel, names)

        self._link = Link(
            url, "orderflow publisher", prepare=declare, check=declare, check_seconds=check_seconds
        )

    def running(self) -> AbstractAsyncContextManager[None]:
        """Keeps a connection open until the context ends."""
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
        """Returns when the message is durable in every queue that it is routed to.

        Raises BrokerUnavailable, Unroutable or UnknownOutcome, as `events.bus.Bus.publish` does.
        """
        message = aio_pika.Message(
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
        """The number of ready messages in a queue. Raises BrokerUnavailable, or Unroutable if it is missing.

        Uses a channel of its own, because the server closes a channel that names a missing queue.
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
