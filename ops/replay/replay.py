"""Puts published events into one service's parked events, a batch and a transaction at a time."""

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
from ops.owner_database import OwnerDatabase
from ops.subscriptions import Subscription, message_of, subscriptions

BATCH_MESSAGES: Final = 50
"""Most messages that one transaction puts in."""


@dataclass(frozen=True)
class ReplayRequest:
    """A request to send a service those events of its subscriptions that match every criterion."""

    service: str
    since: datetime
    """Earliest time of announcement."""
    until: datetime | None = None
    """Announced before this time."""
    order_id: UUID | None = None
    event_type: str | None = None
    again: bool = False
    """Includes events that are in the service's inbox already."""


class _DryRun(Exception):
    """Rolls the transaction back."""


_MESSAGES: Final = """
    SELECT id, type, body, event_ids, order_ids FROM "{publisher}".outbox
    WHERE id >= $1 AND id < $2 AND type = ANY($3::text[]) AND state = 'published'
        AND ($4::uuid IS NULL OR $4 = ANY(order_ids))
        AND ($5 OR EXISTS (SELECT FROM unnest(event_ids) AS event (id)
            WHERE NOT EXISTS (SELECT FROM "{listener}".inbox WHERE event_id = event.id OFFSET 0)))
    ORDER BY id LIMIT $6"""


async def replay_events(
    owned: OwnerDatabase, request: ReplayRequest, *, actor: str, dry_run: bool = False
) -> Counter[str]:
    """Parks the events, due at once, and returns how many of each type.

    Events that the service has parked already stay as they are, also dead and discarded ones. Each batch
    commits with its inbox rows and the record of the intervention, so a replay may be stopped and repeated at
    any time. `dry_run` counts and changes nothing.
    """
    count: Counter[str] = Counter()
    for subscription in subscriptions():
        types = [name for name in subscription.types if request.event_type in {None, name}]
        if subscription.listener == request.service and types:
            async for messages in _messages(owned, subscription, types, request):
                with suppress(_DryRun):
                    async with owned.as_service(request.service) as tx:
                        count += await _park(tx, _events(messages, request), request, actor)
                        if dry_run:
                            raise _DryRun
    return count


async def _messages(
    owned: OwnerDatabase, subscription: Subscription, types: Sequence[str], request: ReplayRequest
) -> AsyncIterator[list[Message]]:
    statement = _MESSAGES.format(publisher=subscription.publisher, listener=subscription.listener)
    start, end = first_id(request.since), first_id(request.until or datetime.now(UTC))
    while True:
        async with owned.transactions() as tx:
            records = await tx.fetch(
                statement, start, end, types, request.order_id, request.again, BATCH_MESSAGES
            )
        if records:
            yield [message_of(record) for record in records]
        if len(records) < BATCH_MESSAGES:
            return
        start = UUID(int=records[-1]["id"].int + 1)


def _events(messages: Sequence[Message], request: ReplayRequest) -> list[AnyEvent]:
    return [
        event
        for message in messages
        for event in envelope.decode(message.body)[0]
        if request.order_id in {None, event.subject}
    ]


async def _park(
    tx: Transaction, events: Sequence[AnyEvent], request: ReplayRequest, actor: str
) -> Counter[str]:
    new = await inbox.register(tx, {event.id for event in events})
    wanted = [event for event in events if request.again or event.id in new]
    put_in = await parked.park_for_replay(tx, wanted)
    count = Counter(type_of(type(event)) for event in wanted if event.id in put_in)
    for event_type, number in count.items():
        note = f"{number} events announced since {request.since:%Y-%m-%dT%H:%M:%SZ}"
        subject = Subject(type=event_type, order_id=request.order_id)
        await interventions.record(
            tx, "refill", [subject], actor=actor, note=f"{note}, again" if request.again else note
        )
    return count
