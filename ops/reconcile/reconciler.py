"""The reconciler: finds published events that never arrived at a service, and sends them again."""

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from typing import Final

from events.backoff import backoff
from events.bus import Bus, Message
from events.errors import Postponed, Unavailable, UnknownOutcome, Unroutable
from events.transactions import Transactions
from ops.reconcile.cursor import Cursor
from ops.reconcile.resend_backoff import ResendBackoff
from ops.subscriptions import Subscription, Undelivered, message_ids, messages, subscriptions, undelivered

GRACE_SECONDS: Final = 30.0
"""A message that was published more recently may still arrive."""
ROUND_SECONDS: Final = 5.0
"""Pause between two rounds."""
CHUNK: Final = 2000
"""Most outbox rows that each of a publisher's two cursors reads in a round."""
RECENT: Final = timedelta(minutes=10)
"""Messages younger than this have a cursor of their own, so a new gap is found soon."""
SEND_BATCH: Final = 50
"""Most messages that are held in memory and sent at a time."""
SEND_SECONDS: Final = 10.0
LONGEST_PAUSE: Final = 30.0
"""Most seconds between two attempts while the database or the broker does not answer."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resent:
    """Events of one type that a service never got and that were sent to it again."""

    service: str
    type: str
    count: int


class Reconciler:
    """Compares outboxes with inboxes, and sends undelivered messages to the queue of the service concerned.

    A message is undelivered if it was published at least `grace` seconds ago and a service that listens to
    its type lacks some of its events in the inbox. A service with messages in its queue is skipped, as the
    missing ones may be among them. A message that a consumer holds for longer than `grace` may be sent twice,
    which is harmless: the inbox drops duplicates. A message that still does not arrive is sent again after a
    growing pause.

    The cost of a round does not depend on the size of the tables: it reads one chunk of recent messages and
    one of all messages, by primary key, and only the bodies of undelivered ones.
    """

    def __init__(
        self,
        transactions: Transactions,
        bus: Bus,
        *,
        grace: float = GRACE_SECONDS,
        chunk: int = CHUNK,
        round_seconds: float = ROUND_SECONDS,
    ) -> None:
        self._transactions = transactions
        self._bus = bus
        self._grace = grace
        self._chunk = chunk
        self._round_seconds = round_seconds
        known = sorted(subscriptions(), key=attrgetter("publisher"))
        self._subscriptions = {name: list(group) for name, group in groupby(known, attrgetter("publisher"))}
        self._listeners = sorted({each.listener for each in known})
        self._recent = {publisher: Cursor(RECENT) for publisher in self._subscriptions}
        self._all = {publisher: Cursor() for publisher in self._subscriptions}
        self._backoff = ResendBackoff()

    async def run(self) -> None:
        """Runs until cancelled. While the database or the broker does not answer, it retries."""
        failures = 0
        while True:
            try:
                await self.round()
            except (Unavailable, Postponed, UnknownOutcome) as error:
                log = logger.debug if failures else logger.warning
                log("reconciling is interrupted: %s", error)
                failures += 1
            except Exception:  # a defect must not end reconciling
                logger.exception("a round of reconciling failed")
                failures += 1
            else:
                if failures:
                    logger.info("reconciling continues")
                failures = 0
            pause = backoff(failures, first=1.0, most=LONGEST_PAUSE) if failures else self._round_seconds
            await asyncio.sleep(pause)

    async def round(self) -> list[Resent]:
        """Reconciles the next chunk of recent messages and the next of all messages, of each publisher.

        Raises Unavailable, Postponed or UnknownOutcome.
        """
        listeners, _ = await self._split_by_backlog()
        resent: Counter[tuple[str, str]] = Counter()
        for publisher in self._subscriptions:
            for cursor in (self._recent[publisher], self._all[publisher]):
                await self._reconcile_chunk(publisher, cursor, listeners, resent)
        self._backoff.drop_expired()
        return _summary(resent)

    async def run_once(self) -> tuple[list[Resent], dict[str, int]]:
        """Reconciles all messages, from the oldest to the newest. Also returns the skipped services.

        With each skipped service is the number of messages that wait in its queue, or 0 if it has no queue.
        Raises Unavailable, Postponed or UnknownOutcome.
        """
        listeners, skipped = await self._split_by_backlog()
        resent: Counter[tuple[str, str]] = Counter()
        for publisher in self._subscriptions:
            cursor = Cursor()
            while not await self._reconcile_chunk(publisher, cursor, listeners, resent):
                pass
        return _summary(resent), skipped

    async def _split_by_backlog(self) -> tuple[set[str], dict[str, int]]:
        """The listeners whose queues are empty, and the others, as `run_once` returns them."""
        idle: set[str] = set()
        skipped: dict[str, int] = {}
        for service in self._listeners:
            try:
                backlog = await self._bus.backlog(service)
            except Unroutable:  # the service itself or the next migration declares its queue again
                skipped[service] = 0
            else:
                if backlog:
                    skipped[service] = backlog
                else:
                    idle.add(service)
        return idle, skipped

    async def _reconcile_chunk(
        self, publisher: str, cursor: Cursor, listeners: Collection[str], resent: Counter[tuple[str, str]]
    ) -> bool:
        """Reads one chunk, resends its undelivered messages and advances. Returns whether it was the last."""
        read = [each for each in self._subscriptions[publisher] if each.listener in listeners]
        async with self._transactions() as tx:
            chunk = await message_ids(tx, publisher, cursor.after, self._chunk)
            found = [
                (each, await undelivered(tx, each, cursor.after, self._chunk, grace=self._grace))
                for each in (read if chunk else ())
            ]
        for subscription, missing in found:
            resent.update(await self._resend(subscription, missing))
        return cursor.advance(chunk, self._chunk)

    async def _resend(
        self, subscription: Subscription, missing: Sequence[Undelivered]
    ) -> Counter[tuple[str, str]]:
        listener = subscription.listener
        due = [each for each in missing if self._backoff.is_due(each.message_id, listener)]
        resent: Counter[tuple[str, str]] = Counter()
        try:
            for start in range(0, len(due), SEND_BATCH):
                batch = {each.message_id: each for each in due[start : start + SEND_BATCH]}
                async with self._transactions() as tx:
                    to_send = await messages(tx, subscription.publisher, list(batch))
                ended = await asyncio.gather(
                    *(self._send(listener, message) for message in to_send), return_exceptions=True
                )
                for message, error in zip(to_send, ended, strict=True):
                    if error is None:
                        resent[listener, message.type] += len(batch[message.id].event_ids)
                for error in ended:
                    if error is not None:
                        raise error
        finally:
            for (service, event_type), count in resent.items():
                logger.warning("sent %d %s events again that %s never got", count, event_type, service)
        return resent

    async def _send(self, service: str, message: Message) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._bus.send(service, message)
        except Unavailable:
            raise
        except TimeoutError as error:
            self._backoff.start(message.id, service)
            raise UnknownOutcome from error
        except (Postponed, UnknownOutcome):
            self._backoff.start(message.id, service)
            raise
        self._backoff.start(message.id, service)


def _summary(counts: Counter[tuple[str, str]]) -> list[Resent]:
    return [Resent(service, event_type, count) for (service, event_type), count in sorted(counts.items())]
