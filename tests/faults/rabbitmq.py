"""Faults of RabbitMQ, made by its own means."""

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
    """A channel of one's own, by no proxy. Raises NoEffect when the broker does not answer."""
    try:
        with errors_as(BrokerUnavailable):
            async with asyncio.timeout(15), opened(cluster.broker_url, "faults") as own:
                yield own
    except BrokerUnavailable as error:
        raise NoEffect(str(error)) from error


async def control(cluster: Cluster, *arguments: str) -> str:
    """What `rabbitmqctl` says. Raises NoEffect when it can't reach the broker."""
    try:
        return await cluster.rabbitmq.execute("rabbitmqctl", "--quiet", *arguments)
    except DockerFailed as failure:
        raise NoEffect(str(failure)) from failure


async def until_up(cluster: Cluster) -> None:
    """Returns when the broker answers."""
    async with asyncio.timeout(UP_SECONDS):
        while True:
            try:
                async with channel(cluster):
                    return
            except NoEffect:
                await asyncio.sleep(0.3)


TRIES: Final = 5
"""How often a binding is taken away until it is seen to be gone."""


@dataclass(frozen=True)
class Restarted:
    """The broker ends, in order or by SIGKILL, and comes back on its data."""

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
            raise NoEffect("The broker is the same.")
        await until_up(cluster)
        return f"the broker that started at {before[11:19]} ended, another started at {after[11:19]}"

    async def heal(self, cluster: Cluster) -> None:
        await cluster.rabbitmq.start()
        await until_up(cluster)


@dataclass(frozen=True)
class OutOfMemory:
    """The memory alarm: whoever publishes is blocked, consumers go on."""

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
    """The server closes every connection (320, CONNECTION_FORCED)."""

    @property
    def name(self) -> str:
        return "RabbitMQ closes every connection"

    async def strike(self, cluster: Cluster) -> str:
        count = len((await control(cluster, "list_connections", "pid")).splitlines()) - 1
        if count < 1:
            raise NoEffect("Nobody is connected.")
        await control(cluster, "close_all_connections", "a fault")
        return f"{count} connections were closed by the server"

    async def heal(self, cluster: Cluster) -> None:
        """Nothing is left broken."""


@dataclass(frozen=True)
class QueueDeleted:
    """A service's queue is gone, with what was in it; the server cancels its consumers."""

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
            raise NoEffect("Nobody consumed from it.")
        consumers, messages = before.consumer_count, before.message_count
        return f"{messages} messages went with the queue, {consumers} consumers were cancelled"

    async def heal(self, cluster: Cluster) -> None:
        """The service declares it again, and what was lost is sent again."""


@dataclass(frozen=True)
class QueuePurged:
    """The service dies, and what waits for it in its queue is gone before it is back."""

    service: str

    @property
    def name(self) -> str:
        return f"RabbitMQ: the queue of {self.service} purged"

    async def strike(self, cluster: Cluster) -> str:
        async with channel(cluster) as own:
            queue = await own.get_queue(NAMES.queue(self.service))
            for replica in cluster.of(self.service):
                with suppress(ProcessLookupError):
                    replica.signal(signal.SIGKILL)
            for _ in range(200):
                purged = (await queue.purge()).message_count
                if purged:
                    return f"{purged} messages were purged"
                await asyncio.sleep(0.02)
        raise NoEffect("The queue was empty all the time.")

    async def heal(self, cluster: Cluster) -> None:
        """What was lost is sent again."""


@dataclass(frozen=True)
class BindingGone:
    """A service no longer gets events of a type, and the exchange confirms them all the same."""

    service: str
    event_type: str

    @property
    def name(self) -> str:
        return f"RabbitMQ: {self.service} not bound to {self.event_type}"

    async def strike(self, cluster: Cluster) -> str:
        exchange, queue = NAMES.exchange(self.event_type), NAMES.queue(self.service)
        for _ in range(TRIES):  # the service's own check may bind it again at that very moment
            async with channel(cluster) as own:
                await (await own.get_queue(queue)).unbind(exchange)
            said = await control(cluster, "list_bindings", "source_name", "destination_name")
            if f"{exchange}\t{queue}" not in said:
                break
        else:
            raise NoEffect("It was bound again each time.")
        return f"{exchange} was not bound to {queue}"

    async def heal(self, cluster: Cluster) -> None:
        """The service binds it again, and what it did not get is sent to it."""
