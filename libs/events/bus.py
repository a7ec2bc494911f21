"""The bus: publish and subscribe. One conformance suite checks these promises for every transport."""

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Message:
    """A batch of events of one type, from one commit."""

    id: UUID
    """UUIDv7; the outbox row's own id."""
    type: str
    """CloudEvents type of every event in it."""
    body: bytes
    """CloudEvents JSON batch."""
    event_ids: tuple[UUID, ...]
    order_ids: tuple[UUID, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """A message as one service received it. Acknowledge, give back or dead-letter it, once."""

    body: bytes
    redelivered: bool
    """True when it was delivered before and not acknowledged: handling it may have killed a process."""
    tag: object
    """The transport's own handle."""


class Subscription(Protocol):
    """One service's share of the messages of its types."""

    async def take(self, limit: int) -> Sequence[Delivery]:
        """Waits for one delivery, and returns it with others that are there already, at most `limit`.

        An empty list means that the subscription has ended. Waits through outages of the transport.
        Cancelling it loses no delivery.
        """
        ...

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Marks the deliveries as done. One whose connection was lost meanwhile is delivered again."""
        ...

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Returns unhandled deliveries to the queue: the service gets them again."""
        ...

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """Moves a message that can't be decoded to the service's dead-letter queue, with the reason.

        Never raises Unavailable: during an outage the message stays in its queue and is delivered again.
        """
        ...


class Bus(Protocol):
    """A transport."""

    async def publish(self, message: Message) -> None:
        """Returns when the message is durable for every service that is bound to its type.

        Publishing again is always safe. Raises Unavailable when the transport does not answer, Unroutable
        when no service is bound to the type, UnknownOutcome when no confirm came in time.
        """
        ...

    async def send(self, service: str, message: Message) -> None:
        """Publishes to one service only, whether or not it is bound to the type.

        Raises as `publish` does; Unroutable when the service has no queue.
        """
        ...

    async def backlog(self, service: str) -> int:
        """How many messages wait in the service's queue and are not delivered to a consumer yet.

        Raises Unavailable when the transport does not answer, Unroutable when the service has no queue.
        """
        ...

    def subscribe(self, service: str, types: Collection[str]) -> AbstractAsyncContextManager[Subscription]:
        """A subscription until the context ends. Unacknowledged deliveries are given back then."""
        ...
