"""Faults of RabbitMQ, made with its own commands."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from aio_pika.abc import AbstractChannel

from events.errors import BrokerUnavailable
from events.rabbitmq import Names
from events.rabbitmq.link import errors_as, opened
from tests.faults.cluster import Cluster
from tests.faults.containers import DockerFailed
from tests.faults.fault import NoEffect

NAMES: Final = Names()
UP_SECONDS: Final = 60.0


@asynccontextmanager
async def channel(cluster: Cluster) -> AsyncIterator[AbstractChannel]:
    """A new channel, without a proxy. Raises NoEffect if the broker does not answer."""
    try:
        with errors_as(BrokerUnavailable):
            async with asyncio.timeout(15), opened(cluster.broker_url, "faults") as own:
                yield own
    except BrokerUnavailable as error:
        raise NoEffect(str(error)) from error


async def control(cluster: Cluster, *arguments: str) -> str:
    """The output of `rabbitmqctl`. Raises NoEffect if it can't reach the broker."""
    try:
        return await cluster.rabbitmq.execute("rabbitmqctl", "--quiet", *arguments)
    except DockerFailed as failure:
        raise NoEffect(str(failure)) from failure


async def wait_until_up(cluster: Cluster) -> None:
    """Waits until the broker answers."""
    async with asyncio.timeout(UP_SECONDS):
        while True:
            try:
                async with channel(cluster):
                    return
            except NoEffect:
                await asyncio.sleep(0.3)


TRIES: Final = 5
"""How often a binding is removed until it is seen to be gone."""


@dataclass(frozen=True)
class Restarted:
    """The broker is stopped or killed, and started again with its data."""

    by_kill: bool

    @property
    def name(self) -> str:
        return f"RabbitMQ {'killed' if self.by_kill else 'restarted'}"

    async def strike(self, cluster: Cluster) -> str:
        before = await cluster.rabbitmq.started_at()
        await (cluster.rabbitmq.kill() if self.by_kill else cluster.rabbitmq.stop())
        await cluster.rabbitmq.start()
        after = await cluster.rabbitmq.started_at()
        if after == before:
            raise NoEffect("The broker was not restarted.")
        await wait_until_up(cluster)
        return f"the broker that started at {before[11:19]} ended, another started at {after[11:19]}"

    async def heal(self, cluster: Cluster) -> None:
        await cluster.rabbitmq.start()
        await wait_until_up(cluster)


@dataclass(frozen=True)
class OutOfMemory:
    """The memory alarm: publishers are blocked, consumers continue."""

    seconds: float

    @property
    def name(self) -> str:
        return f"RabbitMQ out of memory for {self.seconds:.0f} s"

    async def strike(self, cluster: Cluster) -> str:
        await control(cluster, "set_vm_memory_high_watermark", "absolute", "1MB")
        await asyncio.sleep(self.seconds)
        states = await control(cluster, "list_connections", "state")
        blocked = sum(state in ("blocked", "blocking") for state in states.split())
        if not blocked:
            raise NoEffect("No connection was blocked.")
        return f"{blocked} connections were blocked"

    async def heal(self, cluster: Cluster) -> None:
        await control(cluster, "set_vm_memory_high_watermark", "0.6")


@dataclass(frozen=True)
class ConnectionsClosed:
    """The broker closes every connection (320, CONNECTION_FORCED)."""

    @property
    def name(self) -> str:
        return "RabbitMQ closes every connection"

    async def strike(self, cluster: Cluster) -> str:
        count = len((await control(cluster, "list_connections", "pid")).splitlines()) - 1
        if count < 1:
            raise NoEffect("There is no connection.")
        await control(cluster, "close_all_connections", "a fault")
        return f"{count} connections were closed by the server"

    async def heal(self, cluster: Cluster) -> None:
        """Nothing is left broken."""


@dataclass(frozen=True)
class QueueDeleted:
    """A service's queue is deleted with its messages; the broker cancels its consumers."""

    service: str

    @property
    def name(self) -> str:
        return f"RabbitMQ: the queue of {self.service} deleted"

    async def strike(self, cluster: Cluster) -> str:
        async with channel(cluster) as own:
            queue = await own.declare_queue(NAMES.queue(self.service), passive=True)
            before = queue.declaration_result
            await queue.delete(if_unused=False, if_empty=False)
        if not before.consumer_count:
            raise NoEffect("It had no consumer.")
        consumers, messages = before.consumer_count, before.message_count
        return f"{messages} messages were lost with the queue, {consumers} consumers were cancelled"

    async def heal(self, cluster: Cluster) -> None:
        """The service declares the queue again, and reconcile resends the lost events."""


@dataclass(frozen=True)
class QueuePurged:
    """The service is killed, and its queue is purged before it is back."""

    service: str

    @property
    def name(self) -> str:
        return f"RabbitMQ: the queue of {self.service} purged"

    async def strike(self, cluster: Cluster) -> str:
        async with channel(cluster) as own:
            queue = await own.get_queue(NAMES.queue(self.service))
            for replica in cluster.replicas_of(self.service):
                with suppress(ProcessLookupError):
                    replica.signal(signal.SIGKILL)
            for _ in range(200):
                purged = (await queue.purge()).message_count
                if purged:
                    return f"{purged} messages were purged"
                await asyncio.sleep(0.02)
        raise NoEffect("The queue was always empty.")

    async def heal(self, cluster: Cluster) -> None:
        """Reconcile resends the lost events."""


@dataclass(frozen=True)
class BindingGone:
    """A service's queue is not bound to an event type; the exchange still confirms such events."""

    service: str
    event_type: str

    @property
    def name(self) -> str:
        return f"RabbitMQ: {self.service} not bound to {self.event_type}"

    async def strike(self, cluster: Cluster) -> str:
        exchange, queue = NAMES.exchange(self.event_type), NAMES.queue(self.service)
        for _ in range(TRIES):  # the service's own check may bind it again in between
            async with channel(cluster) as own:
                await (await own.get_queue(queue)).unbind(exchange)
            bindings = await control(cluster, "list_bindings", "source_name", "destination_name")
            if f"{exchange}\t{queue}" not in bindings:
                break
        else:
            raise NoEffect("It was bound again each time.")
        return f"{exchange} was not bound to {queue}"

    async def heal(self, cluster: Cluster) -> None:
        """The service binds it again, and reconcile resends the lost events."""
