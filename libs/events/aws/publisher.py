"""Publishing to SNS: what is published at the same time goes together, and each gets its own answer."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from events.aws.calls import CONCURRENCY, Calls, meaning_of
from events.aws.parcels import MAX_ENTRIES, Parcel, as_attributes, parcels_of, requests_of
from events.bus import Message
from events.errors import Unavailable, UnknownOutcome
from events.group_commit import GroupCommit
from events.splitting import commit_in_halves

if TYPE_CHECKING:
    from types_boto3_sns.type_defs import PublishBatchRequestEntryTypeDef

PUBLISH_SECONDS: Final = 8.0
"""Deadline of a publish; it ends before the relay's own."""


class Publisher:
    """Publishes to one topic. While requests are under way the next messages gather, and go in together."""

    def __init__(self, calls: Calls, topic_arn: str) -> None:
        self._calls = calls
        self._topic_arn = topic_arn
        self._group: GroupCommit[Parcel, Exception | None] = GroupCommit(
            self._publish_gathered, limit=CONCURRENCY * MAX_ENTRIES
        )

    async def publish(self, message: Message) -> None:
        """Returns when SNS has the message for good, whoever is subscribed to it.

        Raises BrokerUnavailable, UnknownOutcome, Unroutable when there is no such topic, and Refused.
        """
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                outcomes = await asyncio.gather(*map(self._group.submit, parcels_of(message)))
        except TimeoutError:
            raise UnknownOutcome from None
        for error in outcomes:
            if error:
                raise error

    async def _publish_gathered(self, parcels: Sequence[Parcel]) -> Sequence[Exception | None]:
        outcomes = await asyncio.gather(*map(self._outcomes, requests_of(parcels)))
        return [outcome for of_request in outcomes for outcome in of_request]

    async def _outcomes(self, parcels: Sequence[Parcel]) -> Sequence[Exception | None]:
        """What came of each. Where SNS refuses them together it is found out which of them it refuses."""
        try:
            return await commit_in_halves(parcels, self._publish_together, _refused)
        except Unavailable as error:
            return [error] * len(parcels)

    async def _publish_together(self, parcels: Sequence[Parcel]) -> Sequence[Exception | None]:
        entries: list[PublishBatchRequestEntryTypeDef] = [
            {
                "Id": str(index),
                "Message": parcel.text,
                "MessageAttributes": as_attributes(parcel.attributes),
            }
            for index, parcel in enumerate(parcels)
        ]
        try:
            answer = await self._calls.make(
                lambda: self._calls.sns.publish_batch(
                    TopicArn=self._topic_arn, PublishBatchRequestEntries=entries
                )
            )
        except UnknownOutcome as error:
            return [error] * len(parcels)
        outcomes: dict[str, Exception | None] = {taken.get("Id", ""): None for taken in answer["Successful"]}
        for failed in answer["Failed"]:
            outcomes[failed["Id"]] = meaning_of(
                failed["Code"], failed.get("Message", ""), failed["SenderFault"]
            )
        return [outcomes.get(str(index), UnknownOutcome()) for index in range(len(parcels))]


async def _refused(_: Parcel, error: Exception) -> Exception | None:
    return error
