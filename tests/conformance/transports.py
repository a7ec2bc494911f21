"""The transports under test, and how each of them fails."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, ClassVar, Final, Protocol

import aiormq
from aiormq import spec
from botocore.exceptions import BotoCoreError

from events.aws.bus import AWSBus
from events.aws.entries import MAX_BYTES
from events.aws.invocations import Invocations
from events.bus import Bus
from events.memory import MemoryBus
from events.participant import Participant
from events.rabbitmq import Names, RabbitMQBus, declare
from tests.aws_server import Cloud
from tests.conformance.system import SWEEP_SECONDS, System
from tests.faults.proxy import Proxy
from tests.servers import Broker
from tests.sqs_poller import Poller
from tests.waiting import eventually

CHECK_SECONDS: Final = 0.5
INVOCATION_SECONDS: Final = 60.0


class Transport(Protocol):
    """A transport that can be broken."""

    tells_unroutable: ClassVar[bool]
    """Whether a publisher is told that no queue is bound to a type."""

    async def declare(self, bindings: Mapping[str, Collection[str]]) -> None:
        """Declares the topology, as `orderflow migrate` does."""
        ...

    def bus(self) -> AbstractAsyncContextManager[Bus]:
        """The bus of a new process."""
        ...

    async def run(self, participant: Participant, stop: asyncio.Event) -> None:
        """Runs a participant on this transport until it is stopped."""
        ...

    def carries(self, body: bytes) -> bool:
        """Whether the transport can carry this body."""
        ...

    def described(self) -> dict[str, Any]:
        """The description from which a child process makes the same bus, as JSON."""
        ...

    async def drop_connections(self, system: System) -> None:
        """The other side drops every connection that carries events."""
        ...

    async def restart(self, system: System) -> None:
        """The broker goes away and comes back."""
        ...

    async def end_consumer(self, system: System, service: str) -> None:
        """The broker ends the service's consumer."""
        ...

    async def dead(self, system: System, service: str) -> list[tuple[bytes, str]]:
        """The messages in the service's dead-letter queue, each with its reason."""
        ...


class _AsAProcess:
    """Participants run as in a process of their own, and the transport carries any bytes."""

    tells_unroutable: ClassVar = True

    async def run(self, participant: Participant, _stop: asyncio.Event) -> None:
        await participant.run()

    def carries(self, _body: bytes) -> bool:
        return True


class Memory(_AsAProcess):
    """The memory transport. Its broker is the process."""

    def __init__(self) -> None:
        self._bindings: Mapping[str, Collection[str]] = {}

    async def declare(self, bindings: Mapping[str, Collection[str]]) -> None:
        self._bindings = bindings

    @asynccontextmanager
    async def bus(self) -> AsyncIterator[MemoryBus]:
        bus = MemoryBus(self._bindings)
        yield bus
        bus.close()

    def described(self) -> dict[str, Any]:
        return {"bindings": {service: list(types) for service, types in self._bindings.items()}}

    async def drop_connections(self, system: System) -> None:
        """Its only connections are those to the databases."""
        for service in system.services:
            await system.terminate_backends(service)

    async def restart(self, system: System) -> None:
        """The process dies, and another one starts."""
        running = system.running
        await system.crash()
        await system.start(*running)

    async def end_consumer(self, system: System, service: str) -> None:
        """Only its own process can end a consumer: its participant is cancelled, and another starts."""
        await system.cancel(service)
        await system.start(service)

    async def dead(self, system: System, service: str) -> list[tuple[bytes, str]]:
        assert isinstance(system.bus, MemoryBus)
        return list(system.bus.dead[service])


class RabbitMQ(_AsAProcess):
    """RabbitMQ. The test breaks the broker if it is in a container of its own, else a proxy before it."""

    def __init__(self, broker: Broker, proxy: Proxy, prefix: str) -> None:
        self._broker = broker
        self._proxy = proxy
        self._url = broker.url if broker.container else proxy.through(broker.url)
        self._prefix = prefix
        self._names = Names(prefix)

    async def declare(self, bindings: Mapping[str, Collection[str]]) -> None:
        await declare(self._broker.url, bindings, prefix=self._prefix)

    def bus(self) -> AbstractAsyncContextManager[Bus]:
        return RabbitMQBus(self._url, prefix=self._prefix, check_seconds=CHECK_SECONDS)

    def described(self) -> dict[str, Any]:
        return {"url": self._url, "prefix": self._prefix, "check_seconds": CHECK_SECONDS}

    async def drop_connections(self, system: System) -> None:
        if self._broker.container:
            await self._control("close_all_connections", "a test")
        else:
            self._proxy.cut()

    async def restart(self, system: System) -> None:
        if self._broker.container:
            await asyncio.to_thread(self._broker.restart)
            await eventually(self._answers, bool)
        else:
            await self._proxy.refuse()
            await asyncio.sleep(0.3)  # the outage lasts for a while
            await self._proxy.accept()

    async def end_consumer(self, system: System, service: str) -> None:
        """The server cancels the consumers of a queue that is deleted."""
        async with aiormq.connect(self._broker.url) as connection:
            channel = await connection.channel()
            await channel.queue_delete(self._names.queue(service))

    async def dead(self, system: System, service: str) -> list[tuple[bytes, str]]:
        found: list[tuple[bytes, str]] = []
        async with aiormq.connect(self._broker.url) as connection:
            channel = await connection.channel()
            while True:
                message = await channel.basic_get(self._names.dead(service))
                if isinstance(message.delivery, spec.Basic.GetEmpty):
                    return found
                headers = message.header.properties.headers or {}
                assert headers["type"], headers
                assert headers["time"], headers
                found.append((message.body, str(headers["reason"])))

    async def _answers(self) -> bool:
        try:
            async with aiormq.connect(self._broker.url):
                return True
        except (aiormq.AMQPError, OSError):
            return False

    async def _control(self, *arguments: str) -> None:
        await asyncio.to_thread(self._broker.control, *arguments)


class AWS:
    """SNS and SQS through a proxy that breaks. Each participant is a function with its own container."""

    tells_unroutable: ClassVar = False

    def __init__(self, cloud: Cloud, proxy: Proxy) -> None:
        self._cloud = cloud
        self._proxy = proxy

    async def declare(self, bindings: Mapping[str, Collection[str]]) -> None:
        await asyncio.to_thread(self._cloud.declare, bindings)

    def bus(self) -> AbstractAsyncContextManager[Bus]:
        return AWSBus(self._cloud.topic_arn, prefix=self._cloud.prefix)

    async def run(self, participant: Participant, stop: asyncio.Event) -> None:
        """Polls its queue and invokes it by schedule, until it is stopped."""
        async with AWSBus(self._cloud.topic_arn, prefix=self._cloud.prefix) as bus:
            invocations = Invocations(participant, bus)
            poller = Poller(
                self._cloud,
                participant.service,
                lambda event: invocations.consume(event, INVOCATION_SECONDS),
            )
            while not stop.is_set():
                with suppress(BotoCoreError):  # SQS is away
                    if await poller.poll():
                        continue
                await invocations.sweep(INVOCATION_SECONDS)
                with suppress(TimeoutError):
                    async with asyncio.timeout(SWEEP_SECONDS):
                        await stop.wait()

    def carries(self, body: bytes) -> bool:
        """SQS carries text of a limited size."""
        with suppress(UnicodeDecodeError):
            return bool(body.decode()) and len(body) < MAX_BYTES - 100
        return False

    def described(self) -> dict[str, Any]:
        return {"topic_arn": self._cloud.topic_arn, "prefix": self._cloud.prefix}

    async def drop_connections(self, system: System) -> None:
        self._proxy.cut()

    async def restart(self, system: System) -> None:
        await self._proxy.refuse()
        await asyncio.sleep(0.3)  # the outage lasts for a while
        await self._proxy.accept()

    async def end_consumer(self, system: System, service: str) -> None:
        """Lambda kills the container and starts another."""
        await system.cancel(service)
        await system.start(service)

    async def dead(self, system: System, service: str) -> list[tuple[bytes, str]]:
        address = await asyncio.to_thread(self._cloud.address_of, f"{service}-dead")
        found: list[tuple[bytes, str]] = []
        while messages := await asyncio.to_thread(self._cloud.take, address):
            for message in messages:
                attributes = message["MessageAttributes"]
                assert attributes["type"]["StringValue"]
                assert attributes["time"]["StringValue"]
                found.append((message["Body"].encode(), attributes["reason"]["StringValue"]))
        return found
