"""The small system as a process that can be killed: `python -m tests.conformance.child <JSON>`.

It runs until SIGTERM. The task may tell it to kill itself while handling or after publishing.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from typing import Any, Final

from chassis import database
from events.aws.bus import AWSBus
from events.bus import Bus, Message, Subscription
from events.contracts import AnyEvent, OrderCreated
from events.memory import MemoryBus
from events.participant import Participant
from events.rabbitmq import RabbitMQBus
from events.transaction import Transaction
from events.transactions import Transactions
from tests.conformance.system import HANDLERS, SWEEP_SECONDS, record
from tests.waiting import patient_bus

LETHAL: Final = "LETHAL"
"""Reference of the order that kills the process that handles it."""


def die() -> None:
    """Kills this process, without any clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)


async def die_on_lethal_order(events: Sequence[AnyEvent], tx: Transaction) -> None:
    """Handles the events, and kills the process if the lethal order is among them."""
    await record(events, tx)
    if any(event.data.order.reference == LETHAL for event in events):
        die()


class DiesAfterPublishing:
    """A bus whose process dies when a message is confirmed, before its row can be marked as published."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def publish(self, message: Message) -> None:
        await self._bus.publish(message)
        die()

    async def send(self, service: str, message: Message) -> None:
        await self._bus.send(service, message)

    async def backlog(self, service: str) -> int:
        return await self._bus.backlog(service)

    def subscribe(self, service: str, types: Collection[str]) -> AbstractAsyncContextManager[Subscription]:
        return self._bus.subscribe(service, types)


def bus_of(described: dict[str, Any]) -> AbstractAsyncContextManager[Bus]:
    """The bus of this description (see `Transport.described`)."""
    if "url" in described:
        return RabbitMQBus(
            described["url"], prefix=described["prefix"], check_seconds=described["check_seconds"]
        )
    if "topic_arn" in described:
        return AWSBus(described["topic_arn"], prefix=described["prefix"])
    return nullcontext(patient_bus(described["bindings"]))


async def main(task: dict[str, Any]) -> None:
    """Runs every service of the task until SIGTERM."""
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(bus_of(task["transport"]))
        if task["dies"] == "published":
            bus = DiesAfterPublishing(bus)
        handlers = dict(HANDLERS)
        if task["dies"] == "handling":
            handlers["invoice"] = {OrderCreated: die_on_lethal_order}
        participants = []
        for service, url in task["urls"].items():
            connection = database.connect(url, pool=4, application=f"child {service}")
            transactions = Transactions(await stack.enter_async_context(connection))
            participants.append(
                Participant(service, handlers[service], transactions, bus, sweep_seconds=SWEEP_SECONDS)
            )
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        async with asyncio.TaskGroup() as running:
            for participant in participants:
                running.create_task(participant.run())
            await stop.wait()
            for participant in participants:
                participant.stop()
            if isinstance(bus, MemoryBus):
                bus.close()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
