"""The bus: publish and subscribe. Every transport keeps these promises; one conformance suite shows it."""

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Message:
    """What travels: a batch of events of one type, from one commit."""

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
    """A message as one service received it; to be acknowledged, given back or buried, once."""

    body: bytes
    redelivered: bool
    """True when it was handed out before and never acknowledged, so it may have killed a process."""
    tag: object
    """The transport's own handle."""


class Subscription(Protocol):
    """One service's share of the messages of its types."""

    async def take(self, limit: int) -> Sequence[Delivery]:
        """At least one delivery, and what else is waiting up to `limit`; it never waits for more.

        Nothing at all says that there will never be more: a subscription may come to its end. It waits
        through outages of the transport. Cancelling it loses no delivery.
        """
        ...

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """They are done. Where the transport has lost them meanwhile they will come again."""
        ...

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """They were not handled; this service will get them again."""
        ...

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """It can't be decoded: it is kept in the service's dead-letter queue with its reason.

        Never raises Unavailable: when the transport is away the message comes again, to be buried then.
        """
        ...


class Bus(Protocol):
    """A transport."""

    async def publish(self, message: Message) -> None:
        """Returns when every service that is bound to the type has the message for good.

        Raises Unavailable when the transport does not answer, Unroutable when nobody is bound to the type,
        UnknownOutcome when the confirm did not come in time. Publishing again is always safe.
        """
        ...

    async def send(self, service: str, message: Message) -> None:
        """As `publish`, to one service alone, whatever it is bound to.

        Raises as `publish` does; Unroutable when the service has no queue.
        """
        ...

    async def backlog(self, service: str) -> int:
        """How many messages wait for the service and were not handed to a consumer yet.

        Raises Unavailable when the transport does not answer, Unroutable when the service has no queue: then
        nothing can wait there, and nothing can be sent either.
        """
        ...

    def subscribe(self, service: str, types: Collection[str]) -> AbstractAsyncContextManager[Subscription]:
        """A subscription that is open until the context ends; what is unacknowledged then is given back."""
        ...
