"""Consuming: one consumer of a queue in a process of its own, which survives outages of SQS."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from events.aws.calls import Calls
from events.aws.records import Record, delivery_of, record_of
from events.backoff import backoff
from events.bus import Delivery
from events.errors import EventsError

if TYPE_CHECKING:
    from types_boto3_sqs.type_defs import MessageTypeDef

BATCH: Final = 10
"""Most messages in one request of SQS."""
WAIT_SECONDS: Final = 1
"""How long SQS waits for a message; less than the time limit of a call."""
AHEAD: Final = 32
"""Most messages received ahead. Others stay in the queue, where no visibility timeout runs."""

logger = logging.getLogger(__name__)


class QueueSubscription:
    """One consumer of a service's queue. Keeps the promises of `events.bus.Subscription`."""

    def __init__(
        self,
        service: str,
        address: Callable[[], Awaitable[str]],
        dead_letter: Callable[[Delivery, str], Awaitable[bool]],
    ) -> None:
        self._service = service
        self._address = address
        self._dead_letter = dead_letter
        self._calls = Calls()
        self._waiting: deque[Delivery] = deque()
        self._unsettled: dict[Record, Delivery] = {}
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._ending = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Receives until the context ends. Unacknowledged messages return to the queue then."""
        receiving = asyncio.create_task(self._receive(), name=f"{self._service} queue")
        try:
            yield
        finally:
            self._ending = True
            self._taken.set()
            await receiving  # messages of a running request must not be dropped
            await self.give_back(list(self._unsettled.values()))
            self._calls.close()

    async def take(self, limit: int) -> Sequence[Delivery]:
        """See Subscription."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        self._taken.set()
        return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """See Subscription. Messages that could not be deleted are delivered again."""

        def delete(address: str, batch: Sequence[Record]) -> None:
            entries = [{"Id": str(index), "ReceiptHandle": r.receipt} for index, r in enumerate(batch)]
            self._calls.sqs.delete_message_batch(QueueUrl=address, Entries=entries)  # type: ignore[arg-type]

        await self._settle(deliveries, delete)

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """See Subscription. The messages are visible at once."""

        def show(address: str, batch: Sequence[Record]) -> None:
            entries = [
                {"Id": str(index), "ReceiptHandle": r.receipt, "VisibilityTimeout": 0}
                for index, r in enumerate(batch)
            ]
            self._calls.sqs.change_message_visibility_batch(QueueUrl=address, Entries=entries)  # type: ignore[arg-type]

        await self._settle(deliveries, show)

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """See Subscription. A message that can't be copied now is delivered again."""
        if await self._dead_letter(delivery, reason):
            await self.acknowledge([delivery])

    async def _receive(self) -> None:
        tries = 0
        while not self._ending:
            if len(self._waiting) >= AHEAD:
                self._taken.clear()
                await self._taken.wait()
                continue
            try:
                messages = await self._calls.make(partial(self._receive_some, await self._address()))
            except EventsError as error:
                logger.warning("%s: the queue does not answer: %s", self._service, error)
                await asyncio.sleep(backoff(tries, first=0.1, most=5.0))
                tries += 1
                continue
            tries = 0
            for message in messages:
                delivery = delivery_of(as_record(message))
                self._waiting.append(delivery)
                self._unsettled[record_of(delivery)] = delivery
            if self._waiting:
                self._arrived.set()

    def _receive_some(self, address: str) -> "Sequence[MessageTypeDef]":
        answer = self._calls.sqs.receive_message(
            QueueUrl=address,
            MaxNumberOfMessages=BATCH,
            WaitTimeSeconds=WAIT_SECONDS,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
            MessageAttributeNames=["type"],
        )
        return answer.get("Messages", ())

    async def _settle(
        self, deliveries: Sequence[Delivery], settle: Callable[[str, Sequence[Record]], None]
    ) -> None:
        records = [record_of(delivery) for delivery in deliveries]
        for start in range(0, len(records), BATCH):
            batch = records[start : start + BATCH]
            try:
                await self._calls.make(partial(settle, await self._address(), batch))
            except EventsError as error:
                logger.warning(
                    "%s: messages were not settled, they will be delivered again: %s", self._service, error
                )
        for record in records:
            self._unsettled.pop(record, None)


def as_record(message: "MessageTypeDef") -> dict[str, Any]:
    """A message of SQS in the shape of a Lambda event's record."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {
            name: {
                "stringValue": value.get("StringValue", ""),
                "stringListValues": [],
                "binaryListValues": [],
                "dataType": value["DataType"],
            }
            for name, value in message.get("MessageAttributes", {}).items()
        },
        "eventSource": "aws:sqs",
    }
