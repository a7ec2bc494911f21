"""The reconciler: round after round it looks for what never arrived, and sends it again."""

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Final

from events.backoff import backoff
from events.bus import Bus, Message
from events.errors import Postponed, Unavailable, UnknownOutcome, Unroutable
from events.transactions import Transactions
from ops import feeds
from ops.feeds import Feed, Gap
from ops.reconcile.pauses import Pauses
from ops.reconcile.walk import Walk

GRACE_SECONDS: Final = 30.0
"""How long after its publication a message may take to arrive."""
ROUND_SECONDS: Final = 5.0
"""Between two rounds."""
CHUNK: Final = 2000
"""Most outbox rows that each of the two walks looks at in a round, of each publisher."""
RECENT: Final = timedelta(minutes=10)
"""What was announced so recently is gone through on its own, over and over, beside the whole."""
TOGETHER: Final = 50
"""Most messages that are held and sent at a time."""
SEND_SECONDS: Final = 10.0
LONGEST_PAUSE: Final = 30.0
"""Most seconds between two tries while the database or the broker does not answer."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Healed:
    """Events that a service never got, and that were sent to it."""

    service: str
    type: str
    count: int


class Reconciler:
    """Compares outboxes with inboxes, and sends what a service never got to its queue alone.

    A gap is an event of a message that was published at least `grace` seconds ago, that a service's handler
    table names and its inbox does not have. While messages wait in a service's queue it may be among them, so
    nothing is sent to that service; what a consumer holds unfinished for longer than `grace` may be sent
    twice. That does no harm: the inbox knows what it has. A message that does not arrive all the same is sent
    again after a growing pause.

    A round costs the same for any size of the tables: it looks at one chunk of what is recent and at one of
    the whole, by primary keys, and reads the bodies of what is missing only.
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
        ordered = sorted(feeds.feeds(), key=lambda feed: feed.publisher)
        self._feeds = {name: list(group) for name, group in groupby(ordered, lambda feed: feed.publisher)}
        self._listeners = sorted({feed.listener for feed in ordered})
        self._recent = {publisher: Walk(RECENT) for publisher in self._feeds}
        self._whole = {publisher: Walk() for publisher in self._feeds}
        self._pauses = Pauses()

    async def run(self) -> None:
        """Goes on until cancelled; while the database or the broker does not answer it waits."""
        failures = 0
        while True:
            try:
                await self.round()
            except (Unavailable, Postponed, UnknownOutcome) as error:
                log = logger.debug if failures else logger.warning
                log("reconciling waits: %s", error)
                failures += 1
            except Exception:  # a defect here stops nobody's work
                logger.exception("a round of reconciling failed")
                failures += 1
            else:
                if failures:
                    logger.info("reconciling goes on")
                failures = 0
            pause = backoff(failures, first=1.0, most=LONGEST_PAUSE) if failures else self._round_seconds
            await asyncio.sleep(pause)

    async def round(self) -> list[Healed]:
        """One chunk of what is recent, and one of the whole.

        Raises Unavailable, Postponed or UnknownOutcome.
        """
        listeners, _ = await self._without_backlog()
        healed: Counter[tuple[str, str]] = Counter()
        for publisher in self._feeds:
            for walk in (self._recent[publisher], self._whole[publisher]):
                await self._step(publisher, walk, listeners, healed)
        self._pauses.forget()
        return _told(healed)

    async def pass_once(self) -> tuple[list[Healed], dict[str, int]]:
        """Everything, from the oldest to the newest; also the services that were passed over, and why.

        That is how many messages wait for each, or 0 for one that has no queue.
        Raises Unavailable, Postponed or UnknownOutcome.
        """
        listeners, passed_over = await self._without_backlog()
        healed: Counter[tuple[str, str]] = Counter()
        for publisher in self._feeds:
            walk = Walk()
            while not await self._step(publisher, walk, listeners, healed):
                pass
        return _told(healed), passed_over

    async def _without_backlog(self) -> tuple[set[str], dict[str, int]]:
        free: set[str] = set()
        passed_over: dict[str, int] = {}
        for service in self._listeners:
            try:
                backlog = await self._bus.backlog(service)
            except Unroutable:  # it is declared again by the service itself, or by the next migration
                passed_over[service] = 0
            else:
                if backlog:
                    passed_over[service] = backlog
                else:
                    free.add(service)
        return free, passed_over

    async def _step(
        self, publisher: str, walk: Walk, listeners: Collection[str], healed: Counter[tuple[str, str]]
    ) -> bool:
        """Looks at one chunk, heals it and moves on; says whether it was the last one of the walk."""
        looked_at = [feed for feed in self._feeds[publisher] if feed.listener in listeners]
        async with self._transactions() as tx:
            chunk = await feeds.chunk(tx, publisher, walk.after, self._chunk)
            found = [
                (feed, await feeds.gaps(tx, feed, walk.after, self._chunk, grace=self._grace))
                for feed in (looked_at if chunk else ())
            ]
        for feed, gaps in found:
            healed.update(await self._heal(feed, gaps))
        return walk.move(chunk, self._chunk)

    async def _heal(self, feed: Feed, gaps: Sequence[Gap]) -> Counter[tuple[str, str]]:
        due = [gap for gap in gaps if self._pauses.over(gap.message_id, feed.listener)]
        healed: Counter[tuple[str, str]] = Counter()
        try:
            for start in range(0, len(due), TOGETHER):
                some = {gap.message_id: gap for gap in due[start : start + TOGETHER]}
                async with self._transactions() as tx:
                    messages = await feeds.messages(tx, feed.publisher, list(some))
                ended = await asyncio.gather(
                    *(self._send(feed.listener, message) for message in messages), return_exceptions=True
                )
                for message, error in zip(messages, ended, strict=True):
                    if error is None:
                        healed[feed.listener, message.type] += len(some[message.id].event_ids)
                for error in ended:
                    if error is not None:
                        raise error
        finally:
            for (service, event_type), count in healed.items():
                logger.warning(
                    "%s has not got %d %s events: they were sent again", service, count, event_type
                )
        return healed

    async def _send(self, service: str, message: Message) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._bus.send(service, message)
        except Unavailable:
            raise
        except TimeoutError as error:
            self._pauses.begin(message.id, service)
            raise UnknownOutcome from error
        except (Postponed, UnknownOutcome):
            self._pauses.begin(message.id, service)
            raise
        self._pauses.begin(message.id, service)


def _told(healed: Counter[tuple[str, str]]) -> list[Healed]:
    return [Healed(service, event_type, count) for (service, event_type), count in sorted(healed.items())]
