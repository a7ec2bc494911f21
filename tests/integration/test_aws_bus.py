"""How SNS answers a publisher, or fails to, and how an invocation comes to its end."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from chassis import database
from events import connection, envelope, outbox
from events.aws import invocations as aws_invocations
from events.aws.bus import AWSBus
from events.aws.calls import Refused, error_for
from events.aws.entries import MAX_BYTES
from events.aws.invocations import Invocations, is_from_queue, is_scheduled
from events.bus import Message
from events.contracts import OrderCreated
from events.errors import BrokerUnavailable, Unavailable, UnknownOutcome, Unroutable
from events.participant import Participant
from events.runner import Runner
from events.transaction import Transaction
from events.transactions import Transactions
from tests.aws_server import Cloud
from tests.factories import order_created
from tests.faults.proxy import Proxy, proxy_to
from tests.lambda_functions import SCHEDULED, enveloped, http_api, queue_event
from tests.waiting import eventually


class Line:
    """A bus whose topic is reached through a proxy."""

    def __init__(self, bus: AWSBus, cloud: Cloud, proxy: Proxy) -> None:
        self.bus = bus
        self.cloud = cloud
        self.proxy = proxy

    def arrived(self, service: str = "invoice") -> list[Any]:
        address = self.cloud.address_of(service)
        found: list[Any] = []
        while messages := self.cloud.take(address):
            found += messages
        return found


@pytest.fixture
async def line(aws: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Line]:
    cloud = Cloud(aws, f"test-{uuid.uuid4().hex[:12]}-", visibility_seconds=30)
    await asyncio.to_thread(cloud.declare, {"invoice": ["ORDER_CREATED"]})
    async with proxy_to(aws) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.through(aws))
        async with AWSBus(cloud.topic_arn, prefix=cloud.prefix) as bus:
            yield Line(bus, cloud, proxy)
    await asyncio.to_thread(cloud.remove)


def some_messages(count: int) -> list[Message]:
    return [message for _ in range(count) for message in envelope.messages([order_created()])]


async def test_messages_published_together_arrive_with_their_type(line: Line) -> None:
    messages = some_messages(35)
    await asyncio.gather(*map(line.bus.publish, messages))
    arrived = await asyncio.to_thread(line.arrived)
    assert sorted(found["Body"] for found in arrived) == sorted(message.body.decode() for message in messages)
    assert {found["MessageAttributes"]["type"]["StringValue"] for found in arrived} == {"ORDER_CREATED"}


async def test_a_message_that_sns_refuses_fails_and_its_neighbours_are_published(line: Line) -> None:
    good = some_messages(3)
    bad = Message(uuid7(), "ORDER_CREATED", b'["' + b"x" * MAX_BYTES + b'"]', (), ())
    outcomes = await asyncio.gather(*map(line.bus.publish, (good[0], bad, *good[1:])), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), Refused, type(None), type(None)]
    assert len(await asyncio.to_thread(line.arrived)) == 3


async def test_every_failure_is_one_that_the_relay_understands(line: Line) -> None:
    [message] = some_messages(1)
    await line.bus.publish(message)
    await line.proxy.refuse()
    with pytest.raises(BrokerUnavailable):
        await line.bus.publish(message)
    await line.proxy.accept()
    await line.bus.publish(message)
    await asyncio.to_thread(line.cloud.sns.delete_topic, TopicArn=line.cloud.topic_arn)
    with pytest.raises(Unroutable, match="NotFound"):
        await line.bus.publish(message)


async def test_no_answer_is_an_unknown_outcome(monkeypatch: pytest.MonkeyPatch, aws: str) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    async with server, AWSBus("arn:aws:sns:us-east-1:123456789012:silent", prefix="") as bus:
        with pytest.raises(UnknownOutcome):
            await bus.publish(some_messages(1)[0])


@pytest.mark.parametrize(
    ("code", "sender_fault", "meaning"),
    [
        ("InternalError", False, BrokerUnavailable),
        ("ThrottledException", True, BrokerUnavailable),
        ("Throttling", True, BrokerUnavailable),
        ("AuthorizationError", True, BrokerUnavailable),
        ("ExpiredToken", True, BrokerUnavailable),
        ("KMSThrottling", True, BrokerUnavailable),
        ("NotFound", True, Unroutable),
        ("InvalidParameter", True, Refused),
        ("BatchRequestTooLong", True, Refused),
    ],
)
def test_only_errors_about_the_message_count_against_it(
    code: str, sender_fault: bool, meaning: type[Exception]
) -> None:
    """moto never says most of these."""
    assert type(error_for(code, "told", sender_fault)) is meaning


def test_invocation_events_are_told_apart_by_their_shape() -> None:
    other_source = {"Records": [{"eventSource": "aws:s3"}]}
    rule = {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}
    assert [is_from_queue(e) for e in (queue_event("x"), SCHEDULED, http_api("GET", "/"), other_source)] == [
        True,
        False,
        False,
        False,
    ]
    assert [is_scheduled(event) for event in (SCHEDULED, rule, queue_event("x"), http_api("GET", "/"))] == [
        True,
        True,
        False,
        False,
    ]


class HeldHandler:
    """A handler that waits until the test releases it, and the events that it has handled."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.handled: list[uuid.UUID] = []

    async def handle(self, events: Sequence[OrderCreated], tx: Transaction) -> None:
        await self.released.wait()
        tx.emit(*(order_created() for _ in events))
        self.handled += [event.id for event in events]


def invocations_of(line: Line, transactions: Transactions, handler: HeldHandler) -> Invocations:
    participant = Participant("invoice", {OrderCreated: handler.handle}, transactions, line.bus)
    return Invocations(participant, line.bus)


async def test_raw_and_enveloped_messages_are_handled_and_what_they_announce_is_published_before_the_end(
    line: Line, transactions: Transactions
) -> None:
    handler = HeldHandler()
    handler.released.set()
    raw, wrapped = some_messages(2)
    event = queue_event(raw.body.decode(), enveloped(wrapped.body.decode(), wrapped.type))
    before = asyncio.all_tasks()
    assert await invocations_of(line, transactions, handler).consume(event, 30) == {"batchItemFailures": []}
    assert sorted(handler.handled) == sorted(raw.event_ids + wrapped.event_ids)
    async with transactions() as tx:
        assert [row["state"] for row in await tx.fetch("SELECT state FROM outbox")] == ["published"]
    assert asyncio.all_tasks() <= before


async def test_a_function_whose_time_is_over_gives_back_what_it_has_not_committed_and_can_go_on(
    line: Line, transactions: Transactions
) -> None:
    handler = HeldHandler()
    invoked = invocations_of(line, transactions, handler)
    [message] = some_messages(1)
    event = queue_event(message.body.decode())
    before = asyncio.all_tasks()
    assert await invoked.consume(event, 1.0) == {"batchItemFailures": [{"itemIdentifier": "message-0"}]}
    assert asyncio.all_tasks() <= before
    handler.released.set()
    again = queue_event(message.body.decode(), receives=2)
    assert await invoked.consume(again, 30) == {"batchItemFailures": []}
    assert handler.handled == list(message.event_ids)


async def test_an_invocation_after_one_that_used_all_of_its_time_handles_its_messages(
    line: Line, transactions: Transactions
) -> None:
    """The earlier invocation handled its messages at once; the work that they left took too long."""
    done = asyncio.Event()

    async def ask(events: Sequence[OrderCreated], tx: Transaction) -> None:
        tx.intend(*envelope.messages(events))

    async def take_long(_: Message) -> None:
        await done.wait()

    async def settle(tx: Transaction, outcomes: object) -> None:
        """It leaves no row."""

    runner = Runner("errands", outbox.LEASES, transactions, take_long, settle, policy=outbox.PUBLISH)
    participant = Participant("invoice", {OrderCreated: ask}, transactions, line.bus, {Message: runner})
    invoked = Invocations(participant, line.bus)
    first, second = some_messages(2)
    assert await invoked.consume(queue_event(first.body.decode()), 4.0) == {"batchItemFailures": []}
    done.set()
    assert await invoked.consume(queue_event(second.body.decode()), 30) == {"batchItemFailures": []}


async def test_a_message_not_published_in_time_is_published_by_the_schedule(
    line: Line, transactions: Transactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = HeldHandler()
    handler.released.set()
    invoked = invocations_of(line, transactions, handler)
    [message] = some_messages(1)
    await line.proxy.refuse()
    assert await invoked.consume(queue_event(message.body.decode()), 30) == {"batchItemFailures": []}
    async with transactions() as tx:
        [row] = await tx.fetch("SELECT state, claimed_until < now() + interval '14 s' AS free FROM outbox")
        assert (row["state"], row["free"]) == ("pending", True)
        await tx.execute("UPDATE outbox SET claimed_until = now()")
    await line.proxy.accept()

    async def states_after_a_visit() -> list[str]:
        await invoked.sweep(30)
        async with transactions() as tx:
            return [row["state"] for row in await tx.fetch("SELECT state FROM outbox")]

    await eventually(states_after_a_visit, lambda states: states == ["published"])


async def test_one_scheduled_invocation_does_all_waiting_work_however_long_it_takes_to_find_it(
    line: Line, transactions: Transactions
) -> None:
    async with transactions() as tx:
        tx.emit(order_created())
    invoked = invocations_of(line, transactions, HeldHandler())

    async def waits_for_a_lock() -> bool:
        async with transactions() as tx:
            return bool(await tx.fetch("SELECT FROM pg_locks WHERE NOT granted"))

    async with transactions() as tx:
        await tx.execute("LOCK TABLE outbox IN EXCLUSIVE MODE")
        visit = asyncio.create_task(invoked.sweep(30))
        await eventually(waits_for_a_lock, bool)
    await visit
    async with transactions() as tx:
        assert [row["state"] for row in await tx.fetch("SELECT state FROM outbox")] == ["published"]


async def test_in_an_outage_of_a_third_party_messages_are_done_and_their_work_waits(
    line: Line, transactions: Transactions, caplog: pytest.LogCaptureFixture
) -> None:
    """A function does not wait for the end of an outage, however much time it has."""

    async def ask(events: Sequence[OrderCreated], tx: Transaction) -> None:
        tx.intend(*envelope.messages(events))

    async def is_away(_: Message) -> None:
        calls.append(_)
        raise Unavailable("closed for lunch", retry_after=3600)

    async def settle(tx: Transaction, done: object) -> None:
        raise AssertionError("nothing is ever done")

    calls: list[Message] = []
    runner = Runner("errands", outbox.LEASES, transactions, is_away, settle, policy=outbox.PUBLISH)
    participant = Participant("invoice", {OrderCreated: ask}, transactions, line.bus, {Message: runner})
    invoked = Invocations(participant, line.bus)
    async with asyncio.timeout(60):
        for message in some_messages(3):
            event = queue_event(message.body.decode())
            assert await invoked.consume(event, 3600) == {"batchItemFailures": []}
            assert runner.in_outage
        assert len(calls) == 1
        await invoked.sweep(3600)
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == [
        "errands: in an outage; its work waits in the table"
    ]


async def test_a_request_is_answered_once_its_events_are_published_or_take_too_long(
    line: Line, transactions: Transactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoked = invocations_of(line, transactions, HeldHandler())

    async def request() -> None:
        async with transactions() as tx:
            tx.emit(order_created())

    async def states() -> list[str]:
        async with transactions() as tx:
            return [row["state"] for row in await tx.fetch("SELECT state FROM outbox ORDER BY id")]

    await invoked.answer(request(), 30)
    assert await states() == ["published"]
    monkeypatch.setattr(aws_invocations, "AFTER_ANSWER_SECONDS", 0.1)
    await line.proxy.refuse()
    await invoked.answer(request(), 30)
    assert await states() == ["published", "pending"]


async def test_a_connection_that_was_lost_without_a_sign_is_replaced_before_it_is_used(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lambda freezes functions, and firewalls forget connections."""
    monkeypatch.setattr(connection, "IDLE_SECONDS", 0.0)
    async with (
        proxy_to(fresh_database) as proxy,
        database.connect(proxy.through(fresh_database), pool=1, application="test") as pool,
    ):
        transactions = Transactions(pool)

        async def backend() -> int:
            async with transactions() as tx:
                [row] = await tx.fetch("SELECT pg_backend_pid() AS pid")
                return int(row["pid"])

        first = await backend()
        assert await backend() == first
        proxy.silence()
        assert await backend() != first
