"""Records: messages of a queue in the shape of a Lambda event.

https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html#example-standard-queue-message-event
https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html#services-sqs-batchfailurereporting
"""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import msgspec

from events.bus import Delivery

Answer: TypeAlias = dict[str, list[dict[str, str]]]
"""A function's answer: the messages that it gives back. Lambda deletes the others."""


@dataclass(frozen=True, slots=True)
class Record:
    """One message of a queue."""

    id: str
    receipt: str
    type: str
    """The type in its attributes, or "unknown"."""


class _Notification(msgspec.Struct):
    """SNS's envelope of a message whose subscription does not use raw delivery."""

    Type: Literal["Notification"]
    Message: str
    MessageAttributes: dict[str, dict[str, str]] = {}


_notification: Final = msgspec.json.Decoder(_Notification)


def delivery_of(record: Mapping[str, Any]) -> Delivery:
    """A record of a Lambda event, with or without SNS's envelope, as a delivery whose tag is a Record."""
    body: str = record["body"]
    event_type = record.get("messageAttributes", {}).get("type", {}).get("stringValue")
    if body.startswith("{"):
        try:
            notification = _notification.decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass  # no batch of events either: the worker rejects it
        else:
            body = notification.Message
            event_type = notification.MessageAttributes.get("type", {}).get("Value")
    return Delivery(
        body=body.encode(),
        redelivered=int(record["attributes"]["ApproximateReceiveCount"]) > 1,
        tag=Record(record["messageId"], record["receiptHandle"], event_type or "unknown"),
    )


def record_of(delivery: Delivery) -> Record:
    """The record of a delivery."""
    assert isinstance(delivery.tag, Record)
    return delivery.tag


class Records:
    """The messages of one invocation, as a subscription that ends after the last.

    `dead_letter` copies a delivery to the dead-letter queue, and returns whether that worked.
    """

    def __init__(
        self, event: Mapping[str, Any], dead_letter: Callable[[Delivery, str], Awaitable[bool]]
    ) -> None:
        self._waiting = deque(map(delivery_of, event["Records"]))
        self._given_back = dict.fromkeys(record_of(delivery).id for delivery in self._waiting)
        self._dead_letter = dead_letter

    @property
    def answer(self) -> Answer:
        """Tells Lambda to deliver everything again that is not acknowledged."""
        return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in self._given_back]}

    async def take(self, limit: int) -> Sequence[Delivery]:
        """The next messages, at most `limit`; an empty list at the end."""
        return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Lambda deletes the messages."""
        for delivery in deliveries:
            self._given_back.pop(record_of(delivery).id, None)

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """The messages are delivered again after the queue's visibility timeout."""

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """See Subscription. A message that can't be copied now is delivered again."""
        if await self._dead_letter(delivery, reason):
            await self.acknowledge([delivery])
