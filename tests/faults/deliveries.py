"""Faults of deliveries: repeated and reordered messages, poison, and events of a newer version."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel
from uuid_utils.compat import uuid7

from events.envelope import CONTENT_TYPE, MAX_READ_BYTES
from tests.faults.cluster import REPLICAS, Cluster
from tests.faults.fault import NoEffect
from tests.faults.rabbitmq import NAMES, channel

_RECENT: Final = """
    SELECT type, body, event_ids FROM "{service}".outbox WHERE published_at IS NOT NULL
    ORDER BY id DESC LIMIT 200"""


@dataclass(frozen=True)
class DeliveredAgain:
    """Recent messages of a service are delivered again to all listeners, in random order."""

    service: str
    count: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.count} messages of {self.service} again, shuffled"

    async def strike(self, cluster: Cluster) -> str:
        records = await cluster.fetch(_RECENT.format(service=self.service))
        if not records:
            raise NoEffect(f"{self.service} has published nothing yet.")
        dice = random.Random(self.seed)
        chosen = dice.choices(records, k=self.count)
        async with channel(cluster) as own:
            for record in chosen:
                await _publish(own, NAMES.exchange(record["type"]), "", record["body"])
        events = sum(len(record["event_ids"]) for record in chosen)
        return f"{len(chosen)} messages with {events} events were delivered again"

    async def heal(self, cluster: Cluster) -> None:
        """Nothing is left broken."""


@dataclass(frozen=True)
class Poison:
    """One service receives a message that it can't handle."""

    service: str
    form: str
    """A key of POISON_BODIES."""

    @property
    def name(self) -> str:
        return f"poison for {self.service}: {self.form}"

    async def strike(self, cluster: Cluster) -> str:
        poison_id = str(uuid7())
        body = POISON_BODIES[self.form](poison_id)
        readable = self.form in READABLE
        cluster.poison.add(f"{self.service} {poison_id if readable else _digest(body)}")
        try:
            async with channel(cluster) as own:
                await _publish(own, "", NAMES.queue(self.service), body)
        except NoEffect:  # the broker may have taken it all the same
            cluster.poison_unconfirmed.add(f"{self.service} {poison_id if readable else _digest(body)}")
            raise
        return f"{len(body)} bytes of poison were confirmed by the broker"

    async def heal(self, cluster: Cluster) -> None:
        """It stays dead."""


@dataclass(frozen=True)
class NewerEvent:
    """One service receives an event of a type that only a newer version knows, and parks it."""

    service: str

    @property
    def name(self) -> str:
        return f"event of a newer version for {self.service}"

    async def strike(self, cluster: Cluster) -> str:
        event_id = str(uuid7())
        body = json.dumps(
            [_event(event_id, type="ORDER_LOST", dataschema="urn:orderflow:ORDER_LOST:1", data={})]
        ).encode()
        cluster.newer.add(f"{self.service} {event_id}")
        try:
            async with channel(cluster) as own:
                await _publish(own, "", NAMES.queue(self.service), body)
        except NoEffect:
            cluster.newer_unconfirmed.add(f"{self.service} {event_id}")
            raise
        return f"the event {event_id} was confirmed by the broker"

    async def heal(self, cluster: Cluster) -> None:
        """It stays parked until `remove_newer_events` at the end of the run."""


async def parked_newer_events(cluster: Cluster) -> set[str]:
    """The parked events that wait for a newer version: service and event id."""
    return {
        f"{service} {record['id']}"
        for service in REPLICAS
        for record in await cluster.fetch(
            f"SELECT id FROM \"{service}\".parked WHERE state = 'retry' AND reason = 'unknown_type'"
        )
    }


async def remove_newer_events(cluster: Cluster) -> None:
    """Deletes the parked events of `NewerEvent`, as if a process of the newer version had handled them."""
    for event in cluster.newer:
        service, event_id = event.split()
        await cluster.fetch(f"DELETE FROM \"{service}\".parked WHERE id = $1 AND state = 'retry'", event_id)


async def _publish(own: AbstractChannel, exchange: str, routing_key: str, body: bytes) -> None:
    message = Message(body, content_type=CONTENT_TYPE, delivery_mode=DeliveryMode.PERSISTENT)
    target = await own.get_exchange(exchange, ensure=False) if exchange else own.default_exchange
    await target.publish(message, routing_key, mandatory=True, timeout=10)


def _digest(body: bytes) -> str:
    """Identifies undecodable poison, which has no id."""
    return f"{len(body)} {hash(body)}"


def _event(poison_id: str, **changes: object) -> dict[str, object]:
    return {
        "specversion": "1.0",
        "id": poison_id,
        "source": "/faults",
        "type": "ORDER_CREATED",
        "time": "2026-11-24T12:00:00Z",
        "subject": poison_id,
        "datacontenttype": "application/json",
        **changes,
    }


def _unknown_type(poison_id: str) -> bytes:
    return json.dumps([_event(poison_id, type="ORDER_LOST", data={})]).encode()


def _fields_missing(poison_id: str) -> bytes:
    return json.dumps([_event(poison_id, data={"order": {"id": poison_id}})]).encode()


def _not_json(poison_id: str) -> bytes:
    return f"poison {poison_id}".encode()


def _cut(poison_id: str) -> bytes:
    return json.dumps([_event(poison_id, data={})]).encode()[:-20]


def _too_big(poison_id: str) -> bytes:
    return json.dumps([_event(poison_id, data="x" * MAX_READ_BYTES)]).encode()


READABLE: Final[Mapping[str, Callable[[str], bytes]]] = {
    "of an unknown type": _unknown_type,
    "with fields missing": _fields_missing,
}
"""Messages whose event id can be decoded: the event is parked as dead."""
POISON_BODIES: Final[Mapping[str, Callable[[str], bytes]]] = {
    **READABLE,
    "not JSON": _not_json,
    "cut off": _cut,
    "too big": _too_big,
}
"""Makes each form of poison from an id."""


async def dead_letters(cluster: Cluster) -> set[str]:
    """The messages in the services' dead-letter queues: service and digest. They stay in the queues."""
    found = set()
    async with channel(cluster) as own:
        for service in REPLICAS:
            queue = await own.get_queue(NAMES.dead(service))
            while message := await queue.get(fail=False):
                found.add(f"{service} {_digest(message.body)}")
    return found  # unacknowledged, they return to their queues when the channel closes
