"""Invocations: the work of a Lambda function, one invocation at a time. Between two the process is frozen."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from events.aws.bus import AWSBus
from events.aws.records import Answer, Records
from events.bus import Delivery
from events.participant import Participant
from events.performing import GRACE_SECONDS

DRAIN_SECONDS: Final = GRACE_SECONDS + 3.0
"""Time before the function's end in which nothing new begins and running work is finished and settled."""
LAST_SECONDS: Final = 1.0
"""Time before the function's end at which everything is cancelled. That costs no more than a crash."""
AFTER_ANSWER_SECONDS: Final = 3.0
"""How long an HTTP answer waits for the work that it left behind. The rest waits for a sweep."""

logger = logging.getLogger(__name__)


def is_from_queue(event: Mapping[str, Any]) -> bool:
    """Whether the event holds messages of a queue."""
    records = event.get("Records", ())
    return bool(records) and all(record.get("eventSource") == "aws:sqs" for record in records)


def is_scheduled(event: Mapping[str, Any]) -> bool:
    """Whether the event comes from the schedule, for a sweep."""
    return event.get("orderflow") == "leftovers" or event.get("detail-type") == "Scheduled Event"


class Invocations:
    """Runs a service in one container.

    `seconds` is the time that the function has left. Relay and runners work during each invocation as far as
    it allows; then the rows that are claimed and not done are released.
    """

    def __init__(self, participant: Participant, bus: AWSBus) -> None:
        self._participant = participant
        self._bus = bus

    async def consume(self, event: Mapping[str, Any], seconds: float) -> Answer:
        """Handles the messages of the event, and returns those to deliver again.

        A message is done when all its events are handled or parked and committed, or when it can't be decoded
        and is in the dead-letter queue. Only an outage of the database gives messages back: work for a
        payment provider that is away waits in its table.
        """
        worker, loop = self._participant.worker, asyncio.get_running_loop()

        async def dead_letter(delivery: Delivery, reason: str) -> bool:
            return await self._bus.dead_letter(worker.service, delivery, reason)

        records = Records(event, dead_letter)
        ends = loop.time() + seconds
        time_is_over = loop.call_at(ends - _grace(seconds), worker.stop)
        try:
            async with self._working(seconds):
                await worker.consume(records, holds_back=False)
                time_is_over.cancel()  # else it would stop the worker of the next invocation
                await self._wait_until_idle(ends - _grace(seconds))
        finally:
            time_is_over.cancel()
        return records.answer

    async def sweep(self, seconds: float) -> None:
        """Does all work that is due (messages, retries, unknown outcomes), then the chores.

        An outage that prevents some of it is logged as an error, each time.
        """
        ends = asyncio.get_running_loop().time() + seconds
        async with self._working(seconds):
            self._participant.sweep_now()
            await self._wait_until_idle(ends - _grace(seconds))
            for name in self._participant.in_outage:
                logger.error("%s: in an outage; its work waits in the table", name)
            await self._participant.maintenance.run_once()

    async def answer(self, request: Awaitable[None], seconds: float) -> None:
        """Answers a request, then works on what it left behind for AFTER_ANSWER_SECONDS."""
        async with self._working(seconds):
            await request
            now = asyncio.get_running_loop().time()
            await self._wait_until_idle(now + min(AFTER_ANSWER_SECONDS, seconds / 2))

    @asynccontextmanager
    async def _working(self, seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds - min(LAST_SECONDS, seconds / 4)):
                async with self._participant.working():
                    yield
        except TimeoutError:
            logger.critical(
                "%s: the function's time is over; running work is cancelled", self._participant.service
            )

    async def _wait_until_idle(self, until: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._participant.wait_until_idle()


def _grace(seconds: float) -> float:
    return min(DRAIN_SECONDS, seconds / 2)
