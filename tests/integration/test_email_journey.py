"""From an event to a mail at the server: one for each order and stage, under every failure."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import asyncpg
import msgspec
import pytest

from chassis import database
from chassis.service import open_service
from events.contracts import AnyEvent, Customer, Order
from events.envelope import messages
from events.participant import Participant
from events.transactions import Transactions
from services.email import work
from services.email.domain import Mail
from services.email.handlers import HANDLERS
from services.email.main import SERVICE
from services.email.rendering import MailRenderer
from services.email.settings import EmailSettings
from services.email.smtp.mailer import connect
from services.email.smtp.server import RFC_5321, Server
from tests.factories import an_item, an_order, one_of_each, order_created
from tests.integration.mail_server import CUT, SILENCE, MailServer, mail_server
from tests.waiting import eventually, patient_bus

STAGES = list(one_of_each())
VERSION_1 = Path(__file__).parents[1] / "samples" / "version_1"
QUICK = replace(work.MAIL_RETRIES, first=0.1, longest=0.2)
"""The retries of mails, with pauses short enough for a test."""


class Journey:
    """The email service's surroundings: its database, a bus, and a mail server."""

    def __init__(self, url: str, server: MailServer, reader: Transactions) -> None:
        self.url = url
        self.server = server
        self.policy = QUICK
        self.concurrency = 4
        self.timeouts = RFC_5321
        self.bus = patient_bus({"email": STAGES})
        self._reader = reader

    @asynccontextmanager
    async def service(self) -> AsyncIterator[None]:
        """One process of the service, which dies without draining when the block ends."""
        renderer = MailRenderer("The Shop <orders@shop.example>")
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(database.connect(self.url, pool=4, application="test"))
            transactions = Transactions(pool)
            mailer = await stack.enter_async_context(
                connect(Server.parse(self.server.url), renderer.domain, self.timeouts)
            )
            runner = work.runner_of_mails(
                *(renderer, mailer, transactions),
                concurrency=self.concurrency,
                policy=self.policy,
                slow_after_seconds=0.05,
                sweep_seconds=0.1,
            )
            participant = Participant(
                "email", HANDLERS, transactions, self.bus, {Mail: runner}, sweep_seconds=0.1
            )
            running = asyncio.create_task(participant.run())
            try:
                yield
            finally:
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running

    async def publish(self, *events: AnyEvent) -> None:
        """Publishes the events, and returns when the service has committed them."""
        async with asyncio.timeout(30):
            await asyncio.gather(*(self.bus.publish(message) for message in messages(events)))

    async def records(self) -> list[asyncpg.Record]:
        """The service's record of its mails, by order and stage."""
        async with self._reader() as tx:
            return await tx.fetch("SELECT * FROM mails ORDER BY order_id, stage")

    async def settled(self, count: int) -> list[asyncpg.Record]:
        """All records, once `count` of them have an outcome."""
        async with asyncio.timeout(30):
            while True:
                records = await self.records()
                if sum(record["state"] != "pending" for record in records) >= count:
                    return records
                await asyncio.sleep(0.02)

    async def server_was_asked(self, command: str, times: int) -> None:
        """Returns when the mail server has got the command `count` times."""
        async with asyncio.timeout(30):
            while self.server.commands.count(command) < times:
                await asyncio.sleep(0.01)

    async def execute(self, statement: str) -> None:
        async with self._reader() as tx:
            await tx.execute(statement)


@pytest.fixture
async def journey(service_url: Callable[[str], Awaitable[str]]) -> AsyncIterator[Journey]:
    url = await service_url("email")
    async with mail_server() as server, database.connect(url, pool=2, application="reader") as pool:
        yield Journey(url, server, Transactions(pool))


async def test_every_event_in_the_handler_table_becomes_one_mail(journey: Journey) -> None:
    order = an_order()
    events = one_of_each(order)
    assert {type(event) for event in events.values()} == set(HANDLERS)
    async with journey.service():
        await journey.publish(*events.values())
        records = await journey.settled(len(HANDLERS))

    mails = await journey.server.received(len(HANDLERS))
    expected = {f"<{order.id}.{stage}@shop.example>" for stage in STAGES}
    assert {mail.message["Message-ID"] for mail in mails} == expected
    assert len(mails) == len({mail.message["Subject"] for mail in mails}) == len(HANDLERS)
    assert {mail.recipient for mail in mails} == {"ana@example.com"}
    for record in records:
        assert record["id"] == events[record["stage"]].id
        assert record["state"] == "sent"
        assert record["outcome"].startswith("250 2.0.0 Ok: queued as")
        assert record["sent_at"] >= record["written_at"]
        assert record["message_id"] == f"<{order.id}.{record['stage']}@shop.example>"
        assert record["recipient"] == "ana@example.com"


async def test_mails_that_are_recorded_only_are_not_sent(
    journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SMTP_URL", raising=False)
    settings = EmailSettings(database_url=journey.url, mail_record_only=True)
    async with open_service(SERVICE, settings, journey.bus) as service:
        running = asyncio.create_task(service.participant.run())
        await journey.publish(*one_of_each().values())
        records = await journey.settled(len(HANDLERS))
        service.participant.stop()
        await running
    assert {(record["state"], record["outcome"]) for record in records} == {("sent", "recorded only")}
    assert not journey.server.mails


async def test_a_repeated_event_makes_no_second_mail(journey: Journey) -> None:
    order = an_order()
    once = order_created(order)
    published_anew = msgspec.structs.replace(order_created(order), time=once.time)
    async with journey.service():
        await journey.publish(once)
        await journey.publish(once, published_anew)
        await journey.publish(order_created(order), order_created(order))
        await journey.publish(other := order_created())
        await journey.settled(2)
    assert {mail.message["X-Order-Id"] for mail in journey.server.mails} == {
        str(order.id),
        str(other.subject),
    }
    assert len(journey.server.mails) == 2


async def test_two_processes_at_once_send_one_mail_for_each_stage(journey: Journey) -> None:
    orders = [one_of_each() for _ in range(10)]
    async with journey.service(), journey.service():
        for _ in range(2):
            await asyncio.gather(*(journey.publish(*events.values()) for events in orders))
        await journey.settled(70)
    identities = [mail.message["Message-ID"] for mail in journey.server.mails]
    assert len(identities) == len(set(identities)) == 70


async def test_a_refused_mail_is_recorded_with_its_reason_and_not_sent_again(journey: Journey) -> None:
    journey.server.answers["RCPT"].append("550 5.1.1 No such user")
    async with journey.service():
        await journey.publish(order_created())
        [record] = await journey.settled(1)
        await journey.publish(order_created())
        await journey.settled(2)
    assert (record["state"], record["outcome"]) == ("refused", "550 5.1.1 No such user")
    assert record["sent_at"] is None
    assert len(journey.server.mails) == 1


async def test_a_mail_to_no_address_is_recorded_as_refused_and_the_next_is_sent(journey: Journey) -> None:
    nobody = an_order(customer=Customer(name="Ana", email="ana@example.com\r\nBcc: eve@example.com"))
    async with journey.service():
        await journey.publish(order_created(nobody), order_created())
        records = await journey.settled(2)
    assert sorted(record["state"] for record in records) == ["refused", "sent"]
    assert len(journey.server.mails) == 1


async def test_a_greylisted_mail_is_sent_later_and_others_are_not_held_up(journey: Journey) -> None:
    journey.server.answers["RCPT"].append("451 4.7.1 Greylisted")
    async with journey.service():
        first, second = order_created(), order_created()
        await journey.publish(first)
        await journey.publish(second)
        records = await journey.settled(2)
    assert {record["state"] for record in records} == {"sent"}
    assert sorted(record["attempts"] for record in records) == [0, 1]
    assert len(journey.server.mails) == 2


async def test_a_mail_postponed_for_days_is_given_up_with_the_last_answer(
    journey: Journey, caplog: pytest.LogCaptureFixture
) -> None:
    journey.server.to["ana@example.com"] = "452 4.2.2 Mailbox of <ana@example.com> is full"
    event = order_created()
    async with journey.service():
        await journey.publish(event)
        await eventually(journey.records, lambda records: records[0]["attempts"] > 1)
        [waiting] = await journey.records()
        await journey.execute("UPDATE mails SET waits_since = now() - interval '6 days'")
        [record] = await journey.settled(1)
    assert waiting["state"] == "pending"
    assert record["state"] == "refused"
    assert record["last_error"].endswith("452 4.2.2 Mailbox of <the recipient> is full")
    [told] = [line for line in caplog.messages if "given up as refused" in line]
    assert str(event.id) in told
    assert "ana@example.com" not in told
    assert not journey.server.mails


async def test_a_mail_with_an_unknown_outcome_is_sent_three_times_at_most(
    journey: Journey, caplog: pytest.LogCaptureFixture
) -> None:
    journey.server.answers["CONTENT"].extend([CUT] * 10)
    async with journey.service():
        await journey.publish(order_created())
        [record] = await journey.settled(1)
    assert (record["state"], record["unknowns"]) == ("dead", 3)
    assert len(journey.server.mails) == 3
    assert len({mail.content for mail in journey.server.mails}) == 1
    assert "given up as dead" in caplog.text


def to(recipient: str) -> Order:
    return an_order(customer=Customer(name="Ana", email=recipient))


BAD_ANSWERS = {
    "busy421": "421 4.7.28 Too much mail for this recipient",
    "auth530": "530 5.7.1 Authentication required for this domain",
    "full452": "452 4.2.2 Mailbox full",
    "cut": CUT,
    "hang": SILENCE,
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_a_bad_answer_about_one_recipient_does_not_hold_up_the_others(
    journey: Journey, answer: str
) -> None:
    """Eight orders of one such customer, and then others."""
    journey.timeouts = replace(RFC_5321, rcpt=0.2)
    journey.server.to["bad@example.com"] = answer
    async with journey.service():
        await journey.publish(*(order_created(to("bad@example.com")) for _ in range(8)))
        await journey.server_was_asked("RCPT", 8)
        await journey.publish(*(order_created() for _ in range(20)))
        records = await journey.settled(20)
    assert Counter((record["recipient"], record["state"]) for record in records) == {
        ("bad@example.com", "pending"): 8,
        ("ana@example.com", "sent"): 20,
    }
    assert {record["unknowns"] for record in records} == {0}


async def test_mails_are_sent_soon_after_the_server_stops_refusing_every_recipient(
    journey: Journey, caplog: pytest.LogCaptureFixture
) -> None:
    """The refusal of ten different recipients at RCPT is an outage, during which no mail is given up."""
    people = [f"{number}@example.com" for number in range(10)]
    journey.server.to = dict.fromkeys(people, "530 5.7.0 Authentication required")
    async with journey.service():
        await journey.publish(*(order_created(to(person)) for person in people))
        await eventually(
            lambda: asyncio.sleep(0, caplog.text), lambda text: "paused: no subject gets an answer" in text
        )
        journey.server.to.clear()
        records = await journey.settled(10)
    assert {record["state"] for record in records} == {"sent"}


async def test_a_recipient_that_hangs_through_an_outage_does_not_prolong_it(
    journey: Journey, caplog: pytest.LogCaptureFixture
) -> None:
    """The mail of that recipient keeps its place meanwhile; the others are not due for minutes."""
    journey.policy = work.MAIL_RETRIES
    hangs = asyncio.Event()
    journey.server.holds["hang@example.com"] = hangs
    people = [f"{number}@example.com" for number in range(5)]
    journey.server.to = dict.fromkeys(people, CUT)
    async with journey.service():
        await journey.publish(order_created(to("hang@example.com")))
        await journey.publish(*(order_created(to(person)) for person in people))
        await eventually(
            lambda: asyncio.sleep(0, caplog.text), lambda text: "paused: no subject gets an answer" in text
        )
        await journey.publish(order_created())
        assert (await journey.server.received(1))[0].recipient == "ana@example.com"
        hangs.set()
        await journey.settled(2)


async def test_forty_slow_recipients_do_not_hold_up_the_others(journey: Journey) -> None:
    """There are more of them than ordinary places, and their RCPT is answered after all other mails."""
    journey.concurrency = 16
    slow = [f"slow-{number}@example.com" for number in range(40)]
    released = asyncio.Event()
    journey.server.holds = dict.fromkeys(slow, released)
    events = [order_created(to(person)) for person in slow]
    for number in range(len(slow), 0, -2):
        events[number:number] = [order_created(), order_created()]
    async with journey.service():
        await journey.publish(*events)
        others = await journey.server.received(40)
        assert {mail.recipient for mail in others} == {"ana@example.com"}
        released.set()
        records = await journey.settled(80)
    assert {(record["state"], record["attempts"]) for record in records} == {("sent", 0)}
    assert len(journey.server.mails) == 80


async def test_mails_wait_for_a_mail_server_that_is_down_and_none_is_lost(journey: Journey) -> None:
    await journey.server.stop()
    events = [order_created() for _ in range(20)]
    async with journey.service():
        await journey.publish(*events)
        while not any(record["last_error"] for record in await journey.records()):
            await asyncio.sleep(0.02)
        await journey.server.start()
        records = await journey.settled(20)
    assert {(record["state"], record["attempts"]) for record in records} == {("sent", 0)}
    assert len(journey.server.mails) == 20


@pytest.mark.parametrize("command", ["MAIL", "DATA"])
async def test_a_connection_cut_before_the_final_dot_makes_one_mail(journey: Journey, command: str) -> None:
    journey.server.answers[command].append(CUT)
    async with journey.service():
        await journey.publish(order_created())
        [record] = await journey.settled(1)
    assert record["state"] == "sent"
    assert len(journey.server.mails) == 1


async def test_a_connection_cut_after_the_final_dot_makes_a_second_copy_with_the_same_message_id(
    journey: Journey,
) -> None:
    journey.server.answers["CONTENT"].append(CUT)
    async with journey.service():
        await journey.publish(order_created())
        [record] = await journey.settled(1)
    first, second = journey.server.mails
    assert first.content == second.content
    assert record["message_id"] == first.message["Message-ID"]
    assert (record["state"], record["attempts"]) == ("sent", 1)


async def test_mails_of_a_process_that_died_are_sent_by_the_next(journey: Journey) -> None:
    await journey.server.stop()
    async with journey.service():
        await journey.publish(*(events := one_of_each()).values())
    await journey.server.start()
    await journey.execute("UPDATE mails SET claimed_until = now() - interval '1 second'")
    async with journey.service():
        records = await journey.settled(len(events))
    assert {record["state"] for record in records} == {"sent"}
    sent = {mail.message["Message-ID"]: mail for mail in journey.server.mails}
    assert len(sent) == len(journey.server.mails) == len(events)
    shipped = events["SHIPPED"]
    message = sent[f"<{shipped.subject}.SHIPPED@shop.example>"].message
    assert message["Date"].datetime == shipped.time.replace(microsecond=0)


def stored(stage: str) -> str:
    """The statement that stored a pending mail of version 1."""
    [event] = json.loads((VERSION_1 / f"{stage}.json").read_bytes())
    content = json.dumps(event).encode().hex()
    return f"""
        INSERT INTO mails (id, order_id, stage, recipient, event, state, claimed_until)
        VALUES ('{event["id"]}', '{event["subject"]}', '{stage}', 'ana@example.com',
            decode('{content}', 'hex'), 'pending', now() - interval '1 second')"""


async def test_pending_mails_of_version_1_are_sent(journey: Journey) -> None:
    for stage in STAGES:
        await journey.execute(stored(stage))
    async with journey.service():
        records = await journey.settled(len(STAGES))
    assert {(record["stage"], record["state"]) for record in records} == {(stage, "sent") for stage in STAGES}
    assert len(journey.server.mails) == len(STAGES)


async def test_logs_contain_neither_content_nor_recipient_nor_secrets(
    journey: Journey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for theirs in ("mail.log", "mail.debug"):  # the server's own
        logging.getLogger(theirs).setLevel(logging.CRITICAL)
    order = an_order(
        customer=Customer(name="canary", email="canary@example.com"),
        items=(an_item(name="canary"),),
    )
    journey.server.answers["RCPT"].append("451 4.7.1 <canary@example.com> Greylisted")
    journey.server.answers["DATA"].append(CUT)
    journey.server.answers["CONTENT"].extend([CUT, "554 5.7.1 canary@example.com looks like spam"])
    async with journey.service():
        await journey.publish(order_created(order, payment_method="canary"))
        [record] = await journey.settled(1)
    assert record["state"] == "refused"
    assert "asked again" in caplog.text
    assert "canary" not in caplog.text


async def test_the_assembled_service_writes_to_its_folder(journey: Journey, tmp_path: Path) -> None:
    settings = EmailSettings(database_url=journey.url, mail_folder=tmp_path, smtp_url=None)
    events = one_of_each()
    async with open_service(SERVICE, settings, journey.bus) as running:
        working = asyncio.create_task(running.participant.run())
        await journey.publish(*events.values())
        await journey.settled(len(events))
        running.participant.stop()
        async with asyncio.timeout(30):
            await working
    assert sorted(file.stem for file in tmp_path.iterdir()) == [Mail.about(e).name for e in events.values()]


@pytest.mark.parametrize("seconds", [300, 7200])
async def test_the_first_pause_before_a_mail_is_offered_again_is_a_setting(
    journey: Journey, seconds: int
) -> None:
    settings = EmailSettings(
        database_url=journey.url,
        smtp_url=journey.server.url,
        mail_folder=None,
        mail_retry_seconds=seconds,
    )
    journey.server.answers["RCPT"].append("451 4.7.1 Greylisted")
    async with open_service(SERVICE, settings, journey.bus) as running:
        working = asyncio.create_task(running.participant.run())
        await journey.publish(order_created())
        await eventually(journey.records, lambda records: records[0]["attempts"] == 1)
        running.participant.stop()
        await working
    [record] = await journey.records()
    pause = (record["claimed_until"] - record["written_at"]).total_seconds()
    assert seconds * 0.4 < pause < seconds * 1.1


async def test_the_assembled_service_sends_to_its_server(journey: Journey) -> None:
    settings = EmailSettings(database_url=journey.url, smtp_url=journey.server.url, mail_folder=None)
    async with open_service(SERVICE, settings, journey.bus) as running:
        working = asyncio.create_task(running.participant.run())
        await journey.publish(order_created())
        [mail] = await journey.server.received(1)
        running.participant.stop()
        async with asyncio.timeout(30):
            await working
    assert mail.message["From"] == "Orderflow <orders@orderflow.example>"
    [record] = await journey.records()
    assert record["state"] == "sent"
