"""Every announced event arrives at every service, is handled once, and is never lost."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from events import envelope
from events.bus import Delivery
from events.contracts import AnyEvent, OrderCreated
from events.errors import Unroutable
from events.memory import MemoryBus
from events.transaction import Transaction
from tests.conformance.system import BINDINGS, System
from tests.factories import one_of_each, order_created
from tests.waiting import eventually


def some_events(count: int) -> list[AnyEvent]:
    return [order_created() for _ in range(count)]


async def test_every_bound_service_gets_every_event_once(system: System) -> None:
    await system.start("order", "invoice", "email")
    events = some_events(250)
    await system.emit(*events[:150])
    for event in events[150:]:
        await system.emit(event)
    await system.handle_all(events, "invoice", "email")
    assert not await system.handled("order")


async def test_a_service_gets_only_what_its_handler_table_names(system: System) -> None:
    await system.start("order", "invoice", "email")
    every = one_of_each()
    await system.emit(every["INVOICE_CREATED"], every["ORDER_CREATED"])
    await system.handle_all([every["ORDER_CREATED"]], "invoice", "email")
    await system.handle_all([every["INVOICE_CREATED"]], "order")


async def test_a_confirmed_message_is_durable(system: System) -> None:
    """After `publish` has returned, process and broker may die without losing the message."""
    event = order_created()
    [message] = envelope.messages([event])
    if isinstance(system.bus, MemoryBus):
        await system.start("invoice", "email")
        await system.publish(message)
        await system.crash()
    else:
        await system.publish(message)
        await system.transport.restart(system)
        await system.start("invoice", "email")
    await system.handle_all([event], "invoice", "email")


async def test_a_message_is_not_confirmed_before_every_service_has_stored_it(system: System) -> None:
    """In memory only a commit is durable, so the confirm waits for the slowest service."""
    release = asyncio.Event()

    async def held_up(events: Sequence[AnyEvent], tx: Transaction) -> None:
        await release.wait()

    await system.start("invoice", handlers={OrderCreated: held_up})
    await system.start("email")
    [message] = envelope.messages([order_created()])
    publishing = asyncio.create_task(system.publish(message))
    await eventually(lambda: system.handled("email"), lambda handled: handled.total() == 1)
    if isinstance(system.bus, MemoryBus):
        assert not publishing.done()
    release.set()
    await publishing


async def test_duplicates_in_any_order_are_handled_once(system: System) -> None:
    events = some_events(20)
    messages = [message for event in events for message in envelope.messages([event])]
    messages += envelope.messages(events) + envelope.messages(events[5:15])
    random.shuffle(messages)
    await system.start("order", "invoice", "email")
    await asyncio.gather(*(system.publish(message) for message in messages * 2))
    await system.handle_all(events, "invoice", "email")


async def test_an_unacknowledged_message_comes_again_as_redelivered(system: System) -> None:
    [message] = envelope.messages([order_created()])
    async with system.bus.subscribe("invoice", BINDINGS["invoice"]) as subscription:
        publishing = asyncio.create_task(system.publish(message))
        [first] = await subscription.take(10)
        assert (first.body, first.redelivered) == (message.body, False)
    async with system.bus.subscribe("invoice", BINDINGS["invoice"]) as subscription:
        [second] = await subscription.take(10)
        assert (second.body, second.redelivered) == (message.body, True)
        await subscription.give_back([second])
        [third] = await subscription.take(10)
        assert (third.body, third.redelivered) == (message.body, True)
        await subscription.acknowledge([third])
    await drained(system, publishing)


async def test_a_message_sent_to_one_service_reaches_only_that_one_bound_or_not(
    system: System,
) -> None:
    every = one_of_each()
    bound, not_bound = (envelope.messages([every[name]])[0] for name in ("ORDER_CREATED", "SHIPPED"))
    await system.start("order", "invoice", "email")
    async with asyncio.timeout(30):
        await system.bus.send("invoice", bound)
        await system.bus.send("invoice", bound)
        await system.bus.send("invoice", not_bound)
    await system.until_handled("invoice", Counter([every["ORDER_CREATED"].id]))
    [waiting] = await eventually(lambda: system.parked("invoice", "retry"), bool)
    assert (waiting["id"], waiting["reason"]) == (every["SHIPPED"].id, "no_handler")
    assert await system.handled("invoice") == Counter([every["ORDER_CREATED"].id])
    for other in ("order", "email"):
        assert not await system.handled(other)


async def test_a_message_sent_to_one_service_is_durable_once_confirmed(system: System) -> None:
    event = order_created()
    [message] = envelope.messages([event])
    if isinstance(system.bus, MemoryBus):  # there only a commit is durable
        await system.start("invoice")
        await system.bus.send("invoice", message)
        await system.crash()
    else:
        await system.bus.send("invoice", message)
        await system.transport.restart(system)
        await system.start("invoice")
    await system.until_handled("invoice", Counter([event.id]))


async def test_the_backlog_counts_messages_that_wait_untaken(system: System) -> None:
    messages = [message for _ in range(3) for message in envelope.messages([order_created()])]

    async def backlog() -> int:
        return await system.bus.backlog("invoice")

    assert await backlog() == 0
    sending = asyncio.gather(*(system.bus.send("invoice", message) for message in messages))
    await eventually(backlog, lambda count: count == 3)
    async with system.bus.subscribe("invoice", BINDINGS["invoice"]) as subscription:
        taken: list[Delivery] = []
        while len(taken) < 3:
            taken += await subscription.take(3)
        await eventually(backlog, lambda count: count == 0)
        await subscription.acknowledge(taken[:1])
    await eventually(backlog, lambda count: count == 2)
    await drained(system, sending)


async def test_sending_to_a_service_without_a_queue_fails_and_reaches_no_other(system: System) -> None:
    event = order_created()
    [message] = envelope.messages([event])
    with pytest.raises(Unroutable):
        await system.bus.send("nobody", message)
    with pytest.raises(Unroutable):
        await system.bus.backlog("nobody")
    await system.start("order", "invoice", "email")
    await system.emit(event)
    await system.handle_all([event], "invoice", "email")


async def test_take_returns_waiting_messages_up_to_its_limit_and_loses_none_when_cancelled(
    system: System,
) -> None:
    messages = [message for _ in range(5) for message in envelope.messages([order_created()])]
    async with system.bus.subscribe("invoice", BINDINGS["invoice"]) as subscription:
        waiting = asyncio.create_task(subscription.take(2))
        await asyncio.sleep(0)
        waiting.cancel()
        publishing = asyncio.gather(*(system.publish(message) for message in messages))
        taken: Counter[bytes] = Counter()
        while taken.total() < 5:
            deliveries = await subscription.take(2)
            assert 1 <= len(deliveries) <= 2
            taken.update(delivery.body for delivery in deliveries)
            await subscription.acknowledge(deliveries)
        assert taken == Counter(message.body for message in messages)
    await drained(system, publishing)


async def test_deliveries_acknowledged_out_of_order_leave_the_others_alone(system: System) -> None:
    messages = [message for _ in range(6) for message in envelope.messages([order_created()])]
    async with system.bus.subscribe("invoice", BINDINGS["invoice"]) as subscription:
        publishing = asyncio.gather(*(system.publish(message) for message in messages))
        taken: list[Delivery] = []
        while len(taken) < 6:
            taken += await subscription.take(6)
        await subscription.acknowledge([taken[4], taken[1]])
        await subscription.acknowledge([taken[0], taken[2]])
    async with system.bus.subscribe("invoice", BINDINGS["invoice"]) as subscription:
        left: list[Delivery] = []
        while len(left) < 2:
            left += await subscription.take(6)
        assert {delivery.body for delivery in left} == {taken[3].body, taken[5].body}
        await subscription.acknowledge(left)
    await drained(system, publishing)


async def drained(system: System, publishing: "asyncio.Future[Any]") -> None:
    """Ends the publishing. In memory its confirm waits for every service, and only one of them runs."""
    if isinstance(system.bus, MemoryBus):
        publishing.cancel()
        with suppress(asyncio.CancelledError):
            await publishing
    else:
        await publishing


async def test_consumers_of_one_service_share_its_events(system: System) -> None:
    await system.start("order", "email", "invoice", "invoice")
    events = some_events(200)
    for start in range(0, 200, 4):
        await system.emit(*events[start : start + 4])
    await system.handle_all(events, "invoice", "email")


async def test_a_message_without_a_bound_queue_stays_in_the_outbox_with_its_reason(
    system: System,
) -> None:
    nobodys = one_of_each()["SHIPPED"]
    [message] = envelope.messages([nobodys])
    if not system.transport.tells_unroutable:
        await system.publish(message)
        return
    with pytest.raises(Unroutable, match="No queue is bound"):
        await system.publish(message)

    await system.start("order", "invoice", "email")
    event = order_created()
    await system.emit(nobodys, event)
    await system.until_handled("invoice", Counter([event.id]))

    async def waiting() -> list[tuple[str, str]]:
        rows = await system.query("order", "SELECT state, last_error FROM outbox WHERE attempts > 0")
        return [(row["state"], row["last_error"]) for row in rows]

    [(state, error)] = await eventually(waiting, bool)
    assert state == "pending"
    assert "No queue is bound" in error
