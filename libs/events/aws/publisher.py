"""Publishing to SNS: concurrent messages share requests, and each gets its own answer."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from events.aws.calls import CONCURRENCY, Calls, error_for
from events.aws.entries import MAX_ENTRIES, Entry, as_attributes, entries_of, requests_of
from events.bus import Message
from events.errors import Unavailable, UnknownOutcome
from events.group_commit import GroupCommit
from events.splitting import commit_in_halves

if TYPE_CHECKING:
    from types_boto3_sns.type_defs import PublishBatchRequestEntryTypeDef

PUBLISH_SECONDS: Final = 8.0
"""Time limit of a publish; shorter than the relay's."""


class Publisher:
    """Publishes to one topic. Messages gather while requests are in flight, and are sent together."""

    def __init__(self, calls: Calls, topic_arn: str) -> None:
        self._calls = calls
        self._topic_arn = topic_arn
        self._group: GroupCommit[Entry, Exception | None] = GroupCommit(
            self._publish_gathered, limit=CONCURRENCY * MAX_ENTRIES
        )

    async def publish(self, message: Message) -> None:
        """Returns when the message is durable in SNS, also without a subscriber.

        Raises BrokerUnavailable, UnknownOutcome, Unroutable when the topic is missing, and Refused.
        """
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                outcomes = await asyncio.gather(*map(self._group.submit, entries_of(message)))
        except TimeoutError:
            raise UnknownOutcome from None
        for error in outcomes:
            if error:
                raise error

    async def _publish_gathered(self, entries: Sequence[Entry]) -> Sequence[Exception | None]:
        outcomes = await asyncio.gather(*map(self._outcomes, requests_of(entries)))
        return [outcome for of_request in outcomes for outcome in of_request]

    async def _outcomes(self, entries: Sequence[Entry]) -> Sequence[Exception | None]:
        """The error or None for each entry. A refused request is split to find the refused entries."""
        try:
            return await commit_in_halves(entries, self._publish_together, _refused)
        except Unavailable as error:
            return [error] * len(entries)

    async def _publish_together(self, entries: Sequence[Entry]) -> Sequence[Exception | None]:
        request: list[PublishBatchRequestEntryTypeDef] = [
            {
                "Id": str(index),
                "Message": entry.text,
                "MessageAttributes": as_attributes(entry.attributes),
            }
            for index, entry in enumerate(entries)
        ]
        try:
            answer = await self._calls.make(
                lambda: self._calls.sns.publish_batch(
                    TopicArn=self._topic_arn, PublishBatchRequestEntries=request
                )
            )
        except UnknownOutcome as error:
            return [error] * len(entries)
        outcomes: dict[str, Exception | None] = {taken.get("Id", ""): None for taken in answer["Successful"]}
        for failed in answer["Failed"]:
            outcomes[failed["Id"]] = error_for(
                failed["Code"], failed.get("Message", ""), failed["SenderFault"]
            )
        return [outcomes.get(str(index), UnknownOutcome()) for index in range(len(entries))]


async def _refused(_: Entry, error: Exception) -> Exception | None:
    return error
