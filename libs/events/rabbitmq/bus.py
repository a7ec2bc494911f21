"""The bus on RabbitMQ."""

from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self

from events.bus import Message
from events.envelope import CONTENT_TYPE
from events.rabbitmq.publisher import Publisher
from events.rabbitmq.subscription import QueueSubscription
from events.rabbitmq.topology import Names


class RabbitMQBus:
    """Carries messages between processes. Keeps the promises of `events.bus.Bus`.

    `async with bus` does not wait for the broker: until it answers, publishing raises BrokerUnavailable and
    subscriptions wait. A subscription declares its queues and bindings at every connection and every
    `check_seconds`, in case they were deleted. `prefix` begins the names of all exchanges and queues.
    """

    def __init__(self, url: str, *, prefix: str = "", check_seconds: float = 15.0) -> None:
        self._url = url
        self._names = Names(prefix)
        self._check_seconds = check_seconds
        self._publisher = Publisher(url, self._names, check_seconds=check_seconds)
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._open.enter_async_context(self._publisher.running())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def publish(self, message: Message) -> None:
        """Returns when every queue that is bound to the type has the message on disk."""
        await self._put(message, exchange=self._names.exchange(message.type))

    async def send(self, service: str, message: Message) -> None:
        """Returns when the service's queue has the message on disk."""
        await self._put(message, routing_key=self._names.queue(service))

    async def backlog(self, service: str) -> int:
        """The number of ready messages, without those delivered to a consumer."""
        return await self._publisher.ready_in(self._names.queue(service))

    @asynccontextmanager
    async def subscribe(self, service: str, types: Collection[str]) -> AsyncIterator[QueueSubscription]:
        """Subscribes a service to its queue. Several subscriptions of one service share the messages."""
        subscription = QueueSubscription(
            self._url, self._names, self._publisher, service, types, check_seconds=self._check_seconds
        )
        async with subscription.running():
            yield subscription

    async def _put(self, message: Message, *, exchange: str = "", routing_key: str = "") -> None:
        """Without an exchange the default one is used: its routing key is a queue's name."""
        await self._publisher.publish(
            message.body,
            exchange=exchange,
            routing_key=routing_key,
            message_id=str(message.id),
            content_type=CONTENT_TYPE,
            headers={"type": message.type, "count": len(message.event_ids)},
        )
