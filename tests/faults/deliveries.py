"""Faults of what is delivered: events again and in another order, and poison that nobody can handle."""

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
    """Messages of a service come once more to everyone who listens, in any order."""

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
    """A message that can't be handled comes to one service."""

    service: str
    sort: str
    """One of SORTS."""

    @property
    def name(self) -> str:
        return f"poison for {self.service}: {self.sort}"

    async def strike(self, cluster: Cluster) -> str:
        poison_id = str(uuid7())
        body = SORTS[self.sort](poison_id)
        readable = self.sort in READABLE
        cluster.poison.add(f"{self.service} {poison_id if readable else _digest(body)}")
        try:
            async with channel(cluster) as own:
                await _publish(own, "", NAMES.queue(self.service), body)
        except NoEffect:  # perhaps it was taken all the same
            cluster.poison_perhaps.add(f"{self.service} {poison_id if readable else _digest(body)}")
            raise
        return f"{len(body)} bytes of poison were confirmed by the broker"

    async def heal(self, cluster: Cluster) -> None:
        """It stays dead, with its reason."""


@dataclass(frozen=True)
class Newer:
    """An event of a type that only a newer version knows comes to one service, and waits there for it."""

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
            cluster.newer_perhaps.add(f"{self.service} {event_id}")
            raise
        return f"the event {event_id} was confirmed by the broker"

    async def heal(self, cluster: Cluster) -> None:
        """It waits until the end of the run, when `take_newer` takes it as a newer process would."""


async def waiting_for_newer(cluster: Cluster) -> set[str]:
    """The parked events that wait for a newer version, as `Newer` names them."""
    return {
        f"{service} {record['id']}"
        for service in REPLICAS
        for record in await cluster.fetch(
            f"SELECT id FROM \"{service}\".parked WHERE state = 'retry' AND reason = 'unknown_type'"
        )
    }


async def take_newer(cluster: Cluster) -> None:
    """Takes out what `Newer` put in and still waits, as a process of that version would that handles it."""
    for event in cluster.newer:
        service, event_id = event.split()
        await cluster.fetch(f"DELETE FROM \"{service}\".parked WHERE id = $1 AND state = 'retry'", event_id)


async def _publish(own: AbstractChannel, exchange: str, routing_key: str, body: bytes) -> None:
    message = Message(body, content_type=CONTENT_TYPE, delivery_mode=DeliveryMode.PERSISTENT)
    target = await own.get_exchange(exchange, ensure=False) if exchange else own.default_exchange
    await target.publish(message, routing_key, mandatory=True, timeout=10)


def _digest(body: bytes) -> str:
    """What undecodable poison is known by: it has no id."""
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
"""Messages whose event can be told: it is parked as dead."""
SORTS: Final[Mapping[str, Callable[[str], bytes]]] = {
    **READABLE,
    "not JSON": _not_json,
    "cut off": _cut,
    "too big": _too_big,
}
"""Every kind of poison, made with an id of its own."""


async def buried(cluster: Cluster) -> set[str]:
    """What lies in the services' dead-letter queues, as `Poison` names it; it stays there."""
    found = set()
    async with channel(cluster) as own:
        for service in ("order", "invoice", "billing", "shipment", "email"):
            queue = await own.get_queue(NAMES.dead(service))
            while message := await queue.get(fail=False):
                found.add(f"{service} {_digest(message.body)}")
    return found  # unacknowledged, they go back to their queues as the channel ends
