"""Refilling: from every outbox into one service, a batch and a transaction at a time."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from events import envelope, inbox, interventions, parked
from events.bus import Message
from events.contracts import AnyEvent, type_of
from events.interventions import Subject
from events.partitions import first_id
from events.transaction import Transaction
from ops import feeds
from ops.feeds import Feed
from ops.schemas import Schemas

MESSAGES: Final = 50
"""Most messages that are read and put in together."""


@dataclass(frozen=True)
class Refill:
    """Which events a service gets: those that it listens to, and that every given point fits."""

    service: str
    since: datetime
    """When they were announced, at the earliest."""
    until: datetime | None = None
    """Before when they were announced."""
    order_id: UUID | None = None
    event_type: str | None = None
    again: bool = False
    """Also those that the service has taken over already."""


class _OnlyTried(Exception):
    """A dry run: the transaction is rolled back."""


_MESSAGES: Final = """
    SELECT id, type, body, event_ids, order_ids FROM "{publisher}".outbox
    WHERE id >= $1 AND id < $2 AND type = ANY($3::text[]) AND state = 'published'
        AND ($4::uuid IS NULL OR $4 = ANY(order_ids))
        AND ($5 OR EXISTS (SELECT FROM unnest(event_ids) AS event (id)
            WHERE NOT EXISTS (SELECT FROM "{listener}".inbox WHERE event_id = event.id OFFSET 0)))
    ORDER BY id LIMIT $6"""


async def refill(schemas: Schemas, what: Refill, *, actor: str, dry_run: bool = False) -> Counter[str]:
    """Puts the events in, to be handled by the service now, and returns how many of each type.

    Events that are parked there already, dead and discarded ones too, stay as they are. Each batch commits
    with its inbox rows and its record, so it may be stopped and repeated at any time. A `dry_run` counts, and
    changes nothing.
    """
    count: Counter[str] = Counter()
    for feed in feeds.feeds():
        types = [name for name in feed.types if what.event_type in {None, name}]
        if feed.listener == what.service and types:
            async for messages in _messages(schemas, feed, types, what):
                with suppress(_OnlyTried):
                    async with schemas.of(what.service) as tx:
                        count += await _put_in(tx, _events(messages, what), what, actor)
                        if dry_run:
                            raise _OnlyTried
    return count


async def _messages(
    schemas: Schemas, feed: Feed, types: Sequence[str], what: Refill
) -> AsyncIterator[list[Message]]:
    statement = _MESSAGES.format(publisher=feed.publisher, listener=feed.listener)
    after, end = first_id(what.since), first_id(what.until or datetime.now(UTC))
    while True:
        async with schemas.transactions() as tx:
            records = await tx.fetch(statement, after, end, types, what.order_id, what.again, MESSAGES)
        if records:
            yield [feeds.message(record) for record in records]
        if len(records) < MESSAGES:
            return
        after = UUID(int=records[-1]["id"].int + 1)


def _events(messages: Sequence[Message], what: Refill) -> list[AnyEvent]:
    return [
        event
        for message in messages
        for event in envelope.decode(message.body)[0]
        if what.order_id in {None, event.subject}
    ]


async def _put_in(tx: Transaction, events: Sequence[AnyEvent], what: Refill, actor: str) -> Counter[str]:
    new = await inbox.register(tx, {event.id for event in events})
    wanted = [event for event in events if what.again or event.id in new]
    replayed = await parked.park_for_replay(tx, wanted)
    count = Counter(type_of(type(event)) for event in wanted if event.id in replayed)
    subjects = [Subject(type=event_type, order_id=what.order_id) for event_type in count]
    for subject in subjects:
        note = f"{count[str(subject.type)]} events announced since {what.since:%Y-%m-%dT%H:%M:%SZ}"
        await interventions.record(
            tx, "refill", [subject], actor=actor, note=f"{note}, again" if what.again else note
        )
    return count
