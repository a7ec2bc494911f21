"""Moves messages from the broker's dead-letter queues into the services' tables of parked events."""

from collections.abc import Sequence

from events import envelope, inbox, parked
from events.contracts import AnyEvent
from events.envelope import Rejected
from events.errors import Reject, Undecodable
from events.rabbitmq import DeadLetter, collect
from ops.owner_database import OwnerDatabase


class NeverFinished(Reject):
    """The broker dropped the message after too many deliveries that no consumer finished."""


async def import_from_broker(
    schemas: OwnerDatabase, broker_url: str, service: str, *, prefix: str = ""
) -> int:
    """Moves a service's dead letters into its parked events, as dead, and returns their number.

    A message leaves the broker after its row is committed. If the process ends in between, the broker
    delivers it again and the inbox recognizes it. Raises BrokerUnavailable or DatabaseUnavailable.
    """

    async def keep(letters: Sequence[DeadLetter]) -> None:
        rejected: dict[object, Rejected] = {}
        events: dict[object, AnyEvent] = {}
        for letter in letters:
            try:
                readable, unreadable = envelope.decode(letter.body)
            except Undecodable:
                unreadable, readable = [envelope.undecodable(letter.body, letter.type, letter.reason)], []
            rejected |= {each.id: each for each in unreadable}
            events |= {event.id: event for event in readable}
        async with schemas.as_service(service) as tx:
            new = await inbox.register(tx, {each.id for each in (*rejected.values(), *events.values())})
            await parked.park_rejected(tx, [each for each in rejected.values() if each.id in new])
            for event in events.values():
                if event.id in new:
                    await parked.park(tx, event, NeverFinished())

    return await collect(broker_url, service, keep, prefix=prefix)
