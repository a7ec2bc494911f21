"""Promises of the memory transport beyond the conformance suite."""

import asyncio
from uuid import UUID

import pytest

from events import envelope
from events.bus import Message
from events.errors import BrokerUnavailable
from events.memory import LAG_SECONDS, MAX_PENDING, REMEMBERED, ListenerBehind, MemoryBus
from tests import virtual_clock
from tests.factories import order_created

BINDINGS = {"invoice": ["ORDER_CREATED"], "email": ["ORDER_CREATED"]}


def a_message() -> Message:
    [message] = envelope.messages([order_created()])
    return message


async def test_a_message_made_before_the_bus_is_redelivered_one_made_since_is_not() -> None:
    old = a_message()
    bus = MemoryBus({"invoice": ["ORDER_CREATED"]})
    new = a_message()
    publishing = asyncio.gather(bus.publish(old), bus.publish(new))
    async with bus.subscribe("invoice", ["ORDER_CREATED"]) as subscription:
        await asyncio.sleep(0)
        taken = await subscription.take(10)
        assert {delivery.body: delivery.redelivered for delivery in taken} == {
            old.body: True,
            new.body: False,
        }
        await subscription.acknowledge(taken)
    await publishing


async def test_a_message_is_confirmed_with_its_last_acknowledgement_even_if_published_twice() -> None:
    bus = MemoryBus(BINDINGS)
    message = a_message()
    publishing = [asyncio.create_task(bus.publish(message)) for _ in range(2)]
    for service, types in BINDINGS.items():
        async with bus.subscribe(service, types) as subscription:
            taken = await subscription.take(10)
            assert len(taken) == 1
            assert not any(task.done() for task in publishing)
            await subscription.acknowledge(taken)
    await asyncio.gather(*publishing)


async def test_closing_ends_every_wait_and_taken_deliveries_may_still_be_acknowledged() -> None:
    bus = MemoryBus(BINDINGS)
    publishing = asyncio.create_task(bus.publish(a_message()))
    async with bus.subscribe("invoice", ["ORDER_CREATED"]) as subscription:
        taken = await subscription.take(10)
        bus.close()
        with pytest.raises(BrokerUnavailable):
            await publishing
        await subscription.acknowledge(taken)
    with pytest.raises(BrokerUnavailable):
        await bus.publish(a_message())


async def test_deliveries_that_are_given_back_come_again_in_order() -> None:
    bus = MemoryBus({"invoice": ["ORDER_CREATED"]})
    messages = [a_message() for _ in range(4)]
    publishing = [asyncio.create_task(bus.publish(message)) for message in messages]
    async with bus.subscribe("invoice", ["ORDER_CREATED"]) as subscription:
        taken = await subscription.take(10)
        await subscription.give_back(taken[:2])
        await subscription.give_back(taken[2:])
        again = await subscription.take(10)
        assert {delivery.body for delivery in again} == {message.body for message in messages}
        assert all(delivery.redelivered for delivery in again)
        await subscription.acknowledge(again)
    await asyncio.gather(*publishing)


def test_a_slow_listener_delays_no_other() -> None:
    async def scenario() -> None:
        bus = MemoryBus(BINDINGS)
        loop = asyncio.get_running_loop()
        got: list[bytes] = []

        async def take_all() -> None:
            async with bus.subscribe("invoice", BINDINGS["invoice"]) as invoice:
                while True:
                    taken = await invoice.take(10)
                    got.extend(delivery.body for delivery in taken)
                    await invoice.acknowledge(taken)

        taking = asyncio.create_task(take_all())
        first = a_message()
        with pytest.raises(ListenerBehind):
            await bus.publish(first)
        assert loop.time() == LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS / 10)
        began = loop.time()
        others = [a_message() for _ in range(100)]
        for message in others:
            with pytest.raises(ListenerBehind):
                await bus.publish(message)
        await asyncio.sleep(0)
        assert loop.time() == began, "nobody waits for a listener that lags"
        assert got == [message.body for message in (first, *others)]
        for message in (first, *others):
            with pytest.raises(ListenerBehind):
                await bus.publish(message)
        async with bus.subscribe("email", BINDINGS["email"]) as email:
            taken = await email.take(1000)
            await email.acknowledge(taken)
        assert [delivery.body for delivery in taken] == [message.body for message in (first, *others)]
        for message in (first, *others):
            await bus.publish(message)
        assert len(got) == 101, "asking again reaches only who has not committed"
        taking.cancel()

    virtual_clock.run(scenario())


def test_the_bus_is_bounded_and_delivers_the_excess_when_there_is_room() -> None:
    async def scenario() -> None:
        bus = MemoryBus({"email": ["ORDER_CREATED"]})
        messages = [a_message() for _ in range(REMEMBERED + 10)]
        for message in messages:
            with pytest.raises(ListenerBehind):
                await bus.publish(message)
        assert await bus.backlog("email") == MAX_PENDING
        assert len(bus._committed) <= REMEMBERED
        got: list[bytes] = []
        async with bus.subscribe("email", BINDINGS["email"]) as email:
            for message in messages:
                publishing = asyncio.create_task(bus.publish(message))
                await asyncio.sleep(0)
                if await bus.backlog("email"):
                    taken = await email.take(MAX_PENDING)
                    got.extend(delivery.body for delivery in taken)
                    await email.acknowledge(taken)
                await asyncio.wait([publishing])
                if publishing.exception():
                    await bus.publish(message)
        assert set(got) == {message.body for message in messages}

    virtual_clock.run(scenario())


def test_ids_of_messages_are_ordered_in_time() -> None:
    ids = [a_message().id for _ in range(1000)]
    assert ids == sorted(ids)
    assert all(isinstance(each, UUID) for each in ids)
