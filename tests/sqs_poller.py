"""Lambda's SQS event source, in process: it receives a batch, invokes, and deletes what did not fail.

Messages that the function reports as failed, and all of them if it raises, come again after their visibility
timeout: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from events.aws.subscription import as_record
from tests.aws_server import REGION, Cloud

Invoke = Callable[[Mapping[str, Any]], Awaitable[Any]]


class Poller:
    """Polls one service's queue for one container of its function."""

    def __init__(self, cloud: Cloud, service: str, invoke: Invoke, *, batch_size: int = 10) -> None:
        self._cloud = cloud
        self._service = service
        self._invoke = invoke
        self._batch_size = batch_size
        self._address = ""

    async def poll(self) -> int:
        """Handles one batch; returns how many messages succeeded. Raises the function's error."""
        event = await asyncio.to_thread(self._receive)
        if not event["Records"]:
            return 0
        answer = await self._invoke(event)
        failed = {failure["itemIdentifier"] for failure in (answer or {}).get("batchItemFailures", [])}
        assert failed <= {record["messageId"] for record in event["Records"]}, (
            "Lambda takes it for a failure of all"
        )
        done = [record for record in event["Records"] if record["messageId"] not in failed]
        await asyncio.to_thread(self._delete, done)
        return len(done)

    def _receive(self) -> dict[str, Any]:
        self._address = self._address or self._cloud.address_of(self._service)
        answer = self._cloud.sqs.receive_message(
            QueueUrl=self._address,
            MaxNumberOfMessages=self._batch_size,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        arn = f"arn:aws:sqs:{REGION}:123456789012:{self._cloud.prefix}{self._service}"
        return {
            "Records": [
                as_record(message) | {"eventSourceARN": arn, "awsRegion": REGION}
                for message in answer.get("Messages", [])
            ]
        }

    def _delete(self, records: list[dict[str, Any]]) -> None:
        if records:
            self._cloud.sqs.delete_message_batch(
                QueueUrl=self._address,
                Entries=[
                    {"Id": str(index), "ReceiptHandle": record["receiptHandle"]}
                    for index, record in enumerate(records)
                ],
            )
