"""Dead letters: what nobody could decode is taken from the broker into the service's own table."""

from collections.abc import Sequence

from events import envelope, inbox, parked
from events.contracts import AnyEvent
from events.envelope import Rejected
from events.errors import Reject, Undecodable
from events.rabbitmq import DeadLetter, collect
from ops.owner_database import OwnerDatabase


class NeverFinished(Reject):
    """The broker gave the message up: it was handed out again and again and never finished."""


async def take_in(schemas: OwnerDatabase, broker_url: str, service: str, *, prefix: str = "") -> int:
    """Moves a service's dead letters into its parked events, dead, and returns how many there were.

    A letter leaves the broker once it is committed here. Killed in between, it comes again and is recognised.
    Raises BrokerUnavailable or DatabaseUnavailable.
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
