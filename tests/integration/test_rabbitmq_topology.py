"""The broker's topology is declared whole, safe to declare again, and repaired while processes run."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiormq
import pytest
from aiormq import spec

from events import envelope
from events.bus import Message, Subscription
from events.errors import BrokerUnavailable, UnknownOutcome, Unroutable
from events.rabbitmq import Names, RabbitMQBus, TopologyConflict, declare, purge
from tests.conftest import rabbitmq_of
from tests.factories import one_of_each
from tests.faults.proxy import proxy_to
from tests.servers import Broker
from tests.waiting import eventually

BINDINGS = {"invoice": ["ORDER_CREATED"], "email": ["ORDER_CREATED", "SHIPPED"]}


@pytest.fixture(params=["rabbitmq-4", "rabbitmq-local"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Every broker that answers."""
    return rabbitmq_of(request)


@pytest.fixture
async def prefix(broker: Broker) -> AsyncIterator[str]:
    """A prefix for the test's own names."""
    prefix = f"test-{uuid.uuid4().hex[:12]}."
    yield prefix
    await broker.remove(prefix, *BINDINGS)


@asynccontextmanager
async def channel_to(broker: Broker) -> AsyncIterator[aiormq.abc.AbstractChannel]:
    async with aiormq.connect(broker.url) as connection:
        yield await connection.channel()


async def waiting_in(broker: Broker, queue: str) -> int:
    """How many messages wait in a queue."""
    async with channel_to(broker) as channel:
        declared = await channel.queue_declare(queue, passive=True)
        return declared.message_count or 0


def message(event_type: str = "ORDER_CREATED") -> Message:
    [made] = envelope.messages([one_of_each()[event_type]])
    return made


async def test_it_is_declared_before_any_process_runs_and_again_without_harm(
    broker: Broker, prefix: str
) -> None:
    names = Names(prefix)
    await declare(broker.url, BINDINGS, prefix=prefix)
    async with RabbitMQBus(broker.url, prefix=prefix) as bus:
        await bus.publish(message("ORDER_CREATED"))
        await bus.publish(message("SHIPPED"))
    await declare(broker.url, BINDINGS, prefix=prefix)
    assert await waiting_in(broker, names.queue("invoice")) == 1
    assert await waiting_in(broker, names.queue("email")) == 2


async def test_a_queue_is_unbound_from_types_that_its_service_no_longer_names(
    broker: Broker, prefix: str
) -> None:
    await declare(broker.url, BINDINGS, prefix=prefix)
    await declare(broker.url, BINDINGS | {"email": ["ORDER_CREATED"]}, prefix=prefix)
    async with RabbitMQBus(broker.url, prefix=prefix) as bus:
        with pytest.raises(Unroutable):
            await bus.publish(message("SHIPPED"))
        await bus.publish(message("ORDER_CREATED"))


async def test_another_kind_of_queue_under_the_name_is_a_conflict_that_names_it(
    broker: Broker, prefix: str
) -> None:
    queue = Names(prefix).queue("invoice")
    async with channel_to(broker) as channel:
        await channel.queue_declare(queue, durable=True)
    with pytest.raises(TopologyConflict, match=queue):
        await declare(broker.url, BINDINGS, prefix=prefix)


async def test_a_broker_that_does_not_answer_is_unavailable(broker: Broker) -> None:
    async with proxy_to(broker.url) as proxy:
        await proxy.refuse()
        with pytest.raises(BrokerUnavailable, match="can't take this message now"):
            await declare(proxy.through(broker.url), BINDINGS)


async def test_messages_are_persistent_and_say_what_they_are(broker: Broker, prefix: str) -> None:
    await declare(broker.url, BINDINGS, prefix=prefix)
    sent = message()
    async with RabbitMQBus(broker.url, prefix=prefix) as bus:
        await bus.publish(sent)
    async with channel_to(broker) as channel:
        got = await channel.basic_get(Names(prefix).queue("invoice"))
    properties = got.header.properties
    assert got.body == sent.body
    assert properties.delivery_mode == 2
    assert properties.message_id == str(sent.id)
    assert properties.content_type == "application/cloudevents-batch+json"
    headers = properties.headers or {}
    assert (headers["type"], headers["count"]) == ("ORDER_CREATED", 1)


async def test_a_message_that_is_never_finished_ends_in_the_dead_letter_queue(
    broker: Broker, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("events.rabbitmq.topology.DELIVERY_LIMIT", 3)
    await declare(broker.url, BINDINGS, prefix=prefix)
    names = Names(prefix)
    async with RabbitMQBus(broker.url, prefix=prefix) as bus:
        await bus.publish(message())
        async with bus.subscribe("invoice", BINDINGS["invoice"]) as subscription:
            for _ in range(4):
                await subscription.give_back(await subscription.take(1))
            await eventually(lambda: waiting_in(broker, names.dead("invoice")), lambda count: count == 1)


async def take_one(subscription: Subscription) -> None:
    async with asyncio.timeout(30):
        taken = await subscription.take(100)
    await subscription.acknowledge(taken)


async def routable(bus: RabbitMQBus) -> None:
    """Publishes, as soon as a queue is bound."""

    async def published() -> bool:
        try:
            await bus.publish(message())
        except (UnknownOutcome, BrokerUnavailable, Unroutable):
            return False
        return True

    await eventually(published, bool)


async def delete_queue(channel: aiormq.abc.AbstractChannel, names: Names) -> None:
    await channel.queue_delete(names.queue("invoice"))


async def delete_binding(channel: aiormq.abc.AbstractChannel, names: Names) -> None:
    queue = names.queue("invoice")
    await channel.queue_unbind(queue, names.exchange("ORDER_CREATED"), routing_key=queue)  # as it was bound


async def delete_exchange(channel: aiormq.abc.AbstractChannel, names: Names) -> None:
    await channel.exchange_delete(names.exchange("ORDER_CREATED"))


@pytest.mark.parametrize("delete", [delete_queue, delete_binding, delete_exchange])
async def test_deleted_topology_is_declared_again_while_the_processes_run(
    broker: Broker,
    prefix: str,
    delete: Callable[[aiormq.abc.AbstractChannel, Names], Awaitable[None]],
) -> None:
    async with (
        RabbitMQBus(broker.url, prefix=prefix, check_seconds=0.2) as bus,
        bus.subscribe("invoice", ["ORDER_CREATED"]) as subscription,
    ):
        await routable(bus)
        await take_one(subscription)
        async with channel_to(broker) as channel:
            await delete(channel, Names(prefix))
        await routable(bus)
        await take_one(subscription)


async def test_a_process_may_start_before_the_broker(broker: Broker, prefix: str) -> None:
    await declare(broker.url, BINDINGS, prefix=prefix)
    async with proxy_to(broker.url) as proxy:
        await proxy.refuse()
        async with (
            RabbitMQBus(proxy.through(broker.url), prefix=prefix) as bus,
            bus.subscribe("invoice", BINDINGS["invoice"]) as subscription,
        ):
            with pytest.raises(BrokerUnavailable):
                await bus.publish(message())
            await proxy.accept()
            await routable(bus)
            await take_one(subscription)


async def test_a_message_that_can_not_be_dead_lettered_comes_again(broker: Broker, prefix: str) -> None:
    names = Names(prefix)
    async with (
        RabbitMQBus(broker.url, prefix=prefix, check_seconds=0.3) as bus,
        bus.subscribe("invoice", ["ORDER_CREATED"]) as subscription,
    ):
        await routable(bus)
        [delivery] = await subscription.take(1)
        async with channel_to(broker) as channel:
            await channel.queue_delete(names.dead("invoice"))
        await subscription.dead_letter(delivery, "no reason")
        [again] = await subscription.take(1)
        assert (again.body, again.redelivered) == (delivery.body, True)
        await subscription.dead_letter(again, "no reason")
    async with channel_to(broker) as channel:
        buried = await channel.basic_get(names.dead("invoice"), no_ack=True)
        assert buried.body == delivery.body
        assert (buried.header.properties.headers or {})["reason"] == "no reason"
        left = await channel.basic_get(names.queue("invoice"), no_ack=True)
        assert isinstance(left.delivery, spec.Basic.GetEmpty)


async def test_publishers_fail_in_time_when_a_broker_short_of_memory_accepts_nothing(
    rabbitmq: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("events.rabbitmq.publisher.PUBLISH_SECONDS", 0.5)
    prefix = f"test-{uuid.uuid4().hex[:12]}."
    await declare(rabbitmq.url, BINDINGS, prefix=prefix)
    async with RabbitMQBus(rabbitmq.url, prefix=prefix) as bus:
        await bus.publish(message())
        await asyncio.to_thread(rabbitmq.control, "set_vm_memory_high_watermark", "absolute", "1000")
        try:
            with pytest.raises(UnknownOutcome):  # it was on its way when the broker stopped reading
                await bus.publish(message())
            with pytest.raises(BrokerUnavailable):
                await bus.publish(message())
        finally:
            await asyncio.to_thread(rabbitmq.control, "set_vm_memory_high_watermark", "0.6")
        await routable(bus)
    await rabbitmq.remove(prefix, *BINDINGS)


@pytest.mark.parametrize("broker", ["rabbitmq-4"], indirect=True)  # heartbeats take their time
async def test_a_connection_that_has_gone_silent_is_given_up(
    broker: Broker, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("events.rabbitmq.publisher.PUBLISH_SECONDS", 0.5)
    await declare(broker.url, BINDINGS, prefix=prefix)
    async with proxy_to(broker.url) as proxy:
        url = f"{proxy.through(broker.url)}?heartbeat=1"
        async with (
            RabbitMQBus(url, prefix=prefix) as bus,
            bus.subscribe("invoice", BINDINGS["invoice"]) as subscription,
        ):
            await bus.publish(message())
            await take_one(subscription)
            proxy.silence()
            with pytest.raises(UnknownOutcome):
                await bus.publish(message())
            await routable(bus)
            await take_one(subscription)


async def test_a_broker_of_the_tests_that_can_make_no_queues_is_restarted(rabbitmq: Broker) -> None:
    gives_up = "supervisor:terminate_child(rabbit_sup, rabbit_fifo_dlx_sup)."
    await asyncio.to_thread(rabbitmq.control, "eval", gives_up)
    prefix = f"test-{uuid.uuid4()}."
    with pytest.raises(BrokerUnavailable, match="INTERNAL_ERROR"):
        await declare(rabbitmq.url, BINDINGS, prefix=prefix)
    await asyncio.to_thread(rabbitmq.make_sound)
    await declare(rabbitmq.url, BINDINGS, prefix=prefix)
    await rabbitmq.remove(prefix, *BINDINGS)


async def test_what_waits_is_purged_and_dead_letters_stay(broker: Broker, prefix: str) -> None:
    names = Names(prefix)
    await declare(broker.url, BINDINGS, prefix=prefix)
    async with RabbitMQBus(broker.url, prefix=prefix) as bus:
        for _ in range(3):
            await bus.publish(message())
    async with channel_to(broker) as channel:
        await channel.basic_publish(b"?", routing_key=names.dead("email"))
    assert await purge(broker.url, [*BINDINGS, "gone"], prefix=prefix) == {"invoice": 3, "email": 3}
    assert await waiting_in(broker, names.queue("invoice")) == 0
    assert await waiting_in(broker, names.dead("email")) == 1
