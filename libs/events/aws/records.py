"""Records: messages of a queue in the shape in which Lambda hands them over.

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
"""What a function answers: the messages that it gives back. Lambda deletes the others."""


@dataclass(frozen=True, slots=True)
class Record:
    """One message of a queue."""

    id: str
    receipt: str
    type: str
    """What its sender said that it holds; "unknown" when it did not say."""


class _Notification(msgspec.Struct):
    """What SNS wraps a message in, unless its subscription asks for raw delivery."""

    Type: Literal["Notification"]
    Message: str
    MessageAttributes: dict[str, dict[str, str]] = {}


_notification: Final = msgspec.json.Decoder(_Notification)


def delivery_of(record: Mapping[str, Any]) -> Delivery:
    """A record of an event as a delivery, whose tag is a Record; with SNS's envelope or without."""
    body: str = record["body"]
    event_type = record.get("messageAttributes", {}).get("type", {}).get("stringValue")
    if body.startswith("{"):
        try:
            notification = _notification.decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass  # it is no batch of events either: the worker says so
        else:
            body = notification.Message
            event_type = notification.MessageAttributes.get("type", {}).get("Value")
    return Delivery(
        body=body.encode(),
        redelivered=int(record["attributes"]["ApproximateReceiveCount"]) > 1,
        tag=Record(record["messageId"], record["receiptHandle"], event_type or "unknown"),
    )


def record_of(delivery: Delivery) -> Record:
    """The record that a delivery came from."""
    assert isinstance(delivery.tag, Record)
    return delivery.tag


class Records:
    """The messages of one invocation, as a subscription that comes to its end.

    `dead_letter` moves a delivery to the dead-letter queue, and says whether that went well.
    """

    def __init__(
        self, event: Mapping[str, Any], dead_letter: Callable[[Delivery, str], Awaitable[bool]]
    ) -> None:
        self._waiting = deque(map(delivery_of, event["Records"]))
        self._given_back = dict.fromkeys(record_of(delivery).id for delivery in self._waiting)
        self._dead_letter = dead_letter

    @property
    def answer(self) -> Answer:
        """What Lambda is told: everything that is not acknowledged comes again."""
        return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in self._given_back]}

    async def take(self, limit: int) -> Sequence[Delivery]:
        """What is left of them up to `limit`; nothing at the end."""
        return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Lambda will delete them."""
        for delivery in deliveries:
            self._given_back.pop(record_of(delivery).id, None)

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """They come again when the queue's visibility timeout is over."""

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """It goes to the service's dead-letter queue; where that fails it comes again, to be buried then."""
        if await self._dead_letter(delivery, reason):
            await self.acknowledge([delivery])
