"""The bus on SNS and SQS."""

import logging
import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Final, Self

from events.aws.calls import Calls
from events.aws.entries import Entry, as_attributes, entries_of
from events.aws.publisher import Publisher
from events.aws.records import record_of
from events.aws.subscription import QueueSubscription
from events.bus import Delivery, Message
from events.errors import EventsError

_NO_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

logger = logging.getLogger(__name__)


class AWSBus:
    """Carries messages by one topic and a queue per service. See `events.aws` for its promises.

    Queues are named `<prefix><service>`. `dead_letters` is the address of a function's dead-letter queue;
    without it the address is looked up.
    """

    def __init__(self, topic_arn: str, *, prefix: str, dead_letters: str | None = None) -> None:
        self._prefix = prefix
        self._dead_letters = dead_letters
        self._calls = Calls()
        self._publisher = Publisher(self._calls, topic_arn)
        self._addresses: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._calls.close()

    async def publish(self, message: Message) -> None:
        """Returns when the message is durable in SNS, which delivers it to every subscribed queue."""
        await self._publisher.publish(message)

    async def send(self, service: str, message: Message) -> None:
        """Returns when the message is durable in the service's queue."""
        address = await self._address_of(f"{self._prefix}{service}")

        def put(entry: Entry) -> None:
            self._calls.sqs.send_message(
                QueueUrl=address, MessageBody=entry.text, MessageAttributes=as_attributes(entry.attributes)
            )

        for entry in entries_of(message):
            await self._calls.make(partial(put, entry))

    async def backlog(self, service: str) -> int:
        """The number of visible messages, as SQS estimates it."""
        address = await self._address_of(f"{self._prefix}{service}")
        answer = await self._calls.make(
            lambda: self._calls.sqs.get_queue_attributes(
                QueueUrl=address, AttributeNames=["ApproximateNumberOfMessages"]
            )
        )
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    @asynccontextmanager
    async def subscribe(self, service: str, _types: Collection[str]) -> AsyncIterator[QueueSubscription]:
        """Subscribes a process of its own to the service's queue. A function gets its messages from Lambda.

        The filter of the topic's subscription decides which types arrive, not `_types`.
        """

        async def address() -> str:
            return await self._address_of(f"{self._prefix}{service}")

        async def dead_letter(delivery: Delivery, reason: str) -> bool:
            return await self.dead_letter(service, delivery, reason)

        subscription = QueueSubscription(service, address, dead_letter)
        async with subscription.running():
            yield subscription

    async def dead_letter(self, service: str, delivery: Delivery, reason: str) -> bool:
        """Copies a message to the service's dead-letter queue, and returns whether that worked."""
        attributes = {
            "reason": _NO_XML.sub("\N{REPLACEMENT CHARACTER}", reason)[:1000],
            "type": record_of(delivery).type,
            "time": datetime.now(UTC).isoformat(),
        }
        try:
            address = self._dead_letters or await self._address_of(f"{self._prefix}{service}-dead")
            await self._calls.make(
                lambda: self._calls.sqs.send_message(
                    QueueUrl=address,
                    MessageBody=delivery.body.decode(),
                    MessageAttributes=as_attributes(attributes),
                )
            )
        except EventsError as error:
            logger.warning(
                "%s: a message could not be dead-lettered, it will be delivered again: %s", service, error
            )
            return False
        return True

    async def _address_of(self, queue: str) -> str:
        if queue not in self._addresses:
            answer = await self._calls.make(lambda: self._calls.sqs.get_queue_url(QueueName=queue))
            self._addresses[queue] = answer["QueueUrl"]
        return self._addresses[queue]
