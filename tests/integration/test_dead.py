"""`orderflow dead`: what was set aside is found, understood, and tried again or given up, on the record."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner
from uuid_utils.compat import uuid7

from chassis import database
from events import envelope
from events.bus import Message
from events.contracts import AnyEvent, OrderCreated, Placed, type_of
from events.memory import MemoryBus
from events.participant import Participant
from events.rabbitmq import DeadLetter, RabbitMQBus, collect, declare
from events.transactions import Transactions
from ops.dead import letters
from ops.main import app
from ops.migrate import ROLES, migrate, url_for
from ops.owner_database import connect_as_owner
from services.invoice.handlers import HANDLERS
from tests.conftest import rabbitmq_of
from tests.embedded import database_of, finished, orderflow, running
from tests.factories import an_item, an_order, one_of_each, order_created
from tests.integration.test_ops_run import place
from tests.waiting import eventually, patient_bus

BINDINGS = {"invoice": [type_of(event) for event in HANDLERS]}


def uninvoiceable() -> OrderCreated:
    """An order whose tax is wrong by a cent: the invoice service rejects it."""
    item = an_item(tax=678, total=4658)
    return OrderCreated.of(Placed(order=an_order(items=(item,), tax=677)))


@dataclass
class House:
    """Every schema, and the invoice service on a bus in memory."""

    url: str
    bus: MemoryBus

    async def rows(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.url.replace("+asyncpg", ""))
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    @asynccontextmanager
    async def invoice_service(self) -> AsyncIterator[None]:
        url = url_for(self.url, "invoice", "invoice")
        async with database.connect(url, pool=4, application="test") as pool:
            participant = Participant("invoice", HANDLERS, Transactions(pool), self.bus, sweep_seconds=0.1)
            task = asyncio.create_task(participant.run())
            yield
            self.bus.close()
            participant.stop()
            await task

    async def dead(self, *arguments: str, status: int = 0, actor: str = "ana") -> str:
        """What `orderflow dead …` says to Ana, or whom ORDERFLOW_ACTOR names."""
        environment = {"DATABASE_URL": self.url, "BROKER_URL": "", "ORDERFLOW_ACTOR": actor}
        result = await asyncio.to_thread(CliRunner().invoke, app, ["dead", *arguments], env=environment)
        assert result.exit_code == status, result.output
        return result.output

    async def listed(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(await self.dead("list", "--json", *arguments))
        return found

    async def kill(self, *events: AnyEvent) -> None:
        """The invoice service finds that it can do nothing with these."""
        async with self.invoice_service():
            for message in envelope.messages(events):
                await self.bus.publish(message)


@pytest.fixture
async def house(fresh_database: str) -> House:
    await migrate(fresh_database, {role: role for role in ROLES})
    return House(fresh_database, patient_bus(BINDINGS))


async def test_the_dead_are_grouped_by_failure_and_listed_with_all_that_matters(house: House) -> None:
    wrong = [uninvoiceable() for _ in range(3)]
    foreign = one_of_each()["SHIPPED"]
    assert await house.dead("list") == "Nothing is dead.\n"
    await house.kill(*wrong)
    async with house.invoice_service():
        house.bus = patient_bus(BINDINGS)
    await house.rows(
        "INSERT INTO invoice.parked (id, type, order_id, body, reason, state, claimed_until, last_error) "
        "VALUES ($1, 'SHIPPED', $2, $3, 'no_handler', 'dead', now(), 'No handler.')",
        *(foreign.id, foreign.subject, envelope.encode_one(foreign)),
    )
    groups = await house.dead("list")
    assert "     3  invoice   ORDER_CREATED      Uninvoiceable" in groups
    assert "     1  invoice   SHIPPED            no_handler" in groups
    found = {each["id"]: each for each in await house.listed()}
    assert found.keys() == {str(event.id) for event in [*wrong, foreign]}
    one = found[str(wrong[0].id)]
    assert (one["order_id"], one["reason"], one["attempts"]) == (str(wrong[0].subject), "Uninvoiceable", 1)
    assert one["error"]
    lines = (await house.dead("list", "--each", "--reason", "Uninvoiceable")).splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(str(event.id) for event in wrong)
    assert not await house.listed("--service", "email")
    assert "There is no service 'sales'" in await house.dead("list", "--service", "sales", status=1)


async def test_what_is_shown_of_an_event_is_all_but_its_payment_method(house: House) -> None:
    event = uninvoiceable()
    await house.kill(event)
    said = await house.dead("show", str(event.id))
    assert "Ana Souza" in said
    assert "Uninvoiceable" in said
    assert "pm_card_visa" not in said
    [row] = json.loads(await house.dead("show", "--json", str(event.id)))
    assert row["body"]["data"]["order"]["payment_method"] == "***"
    nobody = str(uuid7())
    assert await house.dead("show", nobody, status=1) == (
        f"Nothing with the id {nobody} is dead, or waits for its next try.\n"
    )


async def test_replayed_it_is_handled_once_what_killed_it_is_mended_and_twice_does_no_harm(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, other = order_created(), uninvoiceable()
    monkeypatch.setattr("services.invoice.handlers.check_invoiceable", _refuse)
    await house.kill(good, other)
    monkeypatch.undo()
    assert len(await house.listed()) == 2
    assert "would be tried again" in await house.dead("replay", "--all", "--dry-run")
    assert len(await house.listed()) == 2
    house.bus = patient_bus(BINDINGS)
    async with house.invoice_service():
        for status in (0, 0):
            await house.dead("replay", "--service", "invoice", "--reason", "Uninvoiceable", status=status)
        invoices = "SELECT order_id FROM invoice.invoices"
        await eventually(lambda: house.rows(invoices), bool)
        left = await eventually(house.listed, lambda found: len(found) == 1)
    assert left[0]["id"] == str(other.id)  # it is as wrong as it was
    assert [row["order_id"] for row in await house.rows(invoices)] == [good.subject]
    acts = await house.rows("SELECT * FROM invoice.interventions WHERE event_id = $1", good.id)
    assert [(act["act"], act["reason"], act["order_id"]) for act in acts] == [
        ("replay", "Uninvoiceable", good.subject)
    ]
    assert acts[0]["actor"] == "ana"


async def test_where_the_account_is_no_person_s_nothing_is_done_until_one_is_named(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = uninvoiceable()
    await house.kill(event)
    monkeypatch.setattr("os.getuid", lambda: 0)
    for arguments in (("replay",), ("discard", "--note", "a test order")):
        said = await house.dead(*arguments, "--all", status=1, actor="")
        assert said == (
            "Give your name for the record, with --as NAME or ORDERFLOW_ACTOR=NAME: "
            "the account root does not belong to a person.\n"
        )
        assert len(await house.listed()) == 1
        await house.dead(*arguments, "--all", "--dry-run", actor="")
    await house.dead("discard", "--all", "--note", "a test order", "--as", "Ana Souza", actor="bot")
    [act] = await house.rows("SELECT actor, note FROM invoice.interventions")
    assert (act["actor"], act["note"]) == ("Ana Souza", "a test order")


def _refuse(_: object) -> None:
    from services.invoice.domain import NotInvoiceable  # noqa: PLC0415

    raise NotInvoiceable("not today")


async def test_discarded_it_is_kept_with_the_reason_and_nothing_brings_it_back(house: House) -> None:
    event = uninvoiceable()
    await house.kill(event)
    await house.dead("discard", str(event.id), "--note", "a test order", "--dry-run")
    assert await house.listed()
    assert "is discarded" in await house.dead("discard", str(event.id), "--note", "a test order")
    assert not await house.listed()
    await house.dead("replay", str(event.id), status=1)
    house.bus = patient_bus(BINDINGS)
    await house.kill(event)  # it comes again
    [row] = await house.rows("SELECT state FROM invoice.parked")
    assert row["state"] == "discarded"
    shown = await house.dead("show", str(event.id))
    assert "a test order" in shown


async def test_nothing_is_done_to_everything_because_an_option_was_forgotten(house: House) -> None:
    assert "--all" in await house.dead("replay", status=2)
    assert "--note" in await house.dead("discard", "--all", status=2)


async def test_dead_work_of_other_tables_is_listed_and_put_back(house: House) -> None:
    payment, order = uuid7(), uuid7()
    await house.rows(
        "INSERT INTO billing.payments (id, order_id, amount, currency, payment_method, snapshot, state, "
        "claimed_until, attempts, last_error) "
        "VALUES ($1, $2, 1, 'BRL', 'pm_card_visa', $3, 'dead', now(), 8, 'x')",
        *(payment, order, b'{"order":{"payment_method":"pm_card_visa"}}'),
    )
    [found] = await house.listed()
    assert (found["service"], found["type"], found["order_id"]) == ("billing", "payments", str(order))
    assert "pm_card_visa" not in await house.dead("show", str(payment))
    assert "is work that is owed" in await house.dead("discard", "--all", "--note", "no", status=1)
    await house.dead("replay", "--all")
    [row] = await house.rows("SELECT state, attempts FROM billing.payments")
    assert (row["state"], row["attempts"]) == ("pending", 0)


async def a_mail(house: House, state: str, seconds: int) -> uuid.UUID:
    """A mail that the server did not take; its claim ends, or it is due, in so many seconds."""
    event = order_created()
    await house.rows(
        "INSERT INTO email.mails (id, order_id, stage, recipient, event, state, claimed_until, attempts, "
        "last_error) VALUES ($1, $2, 'ORDER_CREATED', 'ana@example.com', $3, $4, "
        "now() + make_interval(secs => $5), 7, '452 4.2.2 Mailbox full')",
        *(event.id, event.subject, envelope.encode_one(event), state, seconds),
    )
    return event.id


async def test_a_mail_that_is_postponed_is_tried_at_once_or_given_up_by_its_id(house: House) -> None:
    first, second = await a_mail(house, "pending", 3600), await a_mail(house, "pending", 3600)
    assert not await house.listed()
    assert "Mailbox full" in await house.dead("show", str(first))
    assert await house.dead("discard", "--all", "--note", "no") == "Nothing was changed.\n"
    assert "is tried again now" in await house.dead("replay", str(first))
    assert "is discarded" in await house.dead("discard", str(second), "--note", "She changed her address.")
    rows = {
        row["id"]: row for row in await house.rows("SELECT *, claimed_until <= now() AS due FROM email.mails")
    }
    assert (rows[first]["state"], rows[first]["attempts"], rows[first]["due"]) == ("pending", 0, True)
    assert (rows[second]["state"], rows[second]["attempts"]) == ("refused", 7)
    acts = await house.rows("SELECT act, event_id, note FROM email.interventions ORDER BY id")
    assert [tuple(act) for act in acts] == [
        ("replay", first, None),
        ("discard", second, "She changed her address."),
    ]


async def test_a_mail_that_a_process_may_be_sending_now_is_left_to_it(house: House) -> None:
    mail = str(await a_mail(house, "pending", 10))
    assert "waits for its next try" in await house.dead("replay", mail, status=1)
    assert "waits for its next try" in await house.dead("discard", mail, "--note", "no", status=1)
    [row] = await house.rows("SELECT state, attempts FROM email.mails")
    assert tuple(row) == ("pending", 7)


async def test_an_id_that_is_dead_means_that_and_not_the_mail_about_it(house: House) -> None:
    mail = await a_mail(house, "pending", 3600)
    await house.rows(
        "INSERT INTO invoice.parked (id, type, body, reason, state, claimed_until) "
        "VALUES ($1, 'ORDER_CREATED', '{}', 'Broken', 'dead', now())",
        mail,
    )
    await house.dead("discard", str(mail), "--note", "a test order")
    [row] = await house.rows("SELECT state FROM email.mails")
    assert row["state"] == "pending"


async def test_a_dead_mail_is_sent_again_or_given_up(house: House) -> None:
    first, second = await a_mail(house, "dead", 0), await a_mail(house, "dead", 0)
    assert len(await house.listed()) == 2
    await house.dead("discard", str(first), "--note", "It did arrive.")
    await house.dead("replay", "--all")
    rows = {row["id"]: row["state"] for row in await house.rows("SELECT id, state FROM email.mails")}
    assert rows == {first: "refused", second: "pending"}


class Killed(Exception):
    """The process is gone."""


Keep = Callable[[Sequence[DeadLetter]], Awaitable[None]]
UNDECODABLE = (b"", b"not JSON", b"\xff\x00{", b'{"payment_method": "pm_card_secret"}')


@pytest.mark.parametrize("rabbitmq_name", ["rabbitmq-4", "rabbitmq-local"])
async def test_what_could_not_be_decoded_is_kept_with_the_others_also_when_killed_in_between(
    request: pytest.FixtureRequest, house: House, rabbitmq_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.param = rabbitmq_name
    broker, prefix = rabbitmq_of(request), f"test-{uuid.uuid4().hex[:12]}."
    await declare(broker.url, BINDINGS, prefix=prefix)
    lost = order_created()
    try:
        async with (
            RabbitMQBus(broker.url, prefix=prefix) as bus,
            connect_as_owner(house.url, "test") as owned,
        ):
            for body in (*UNDECODABLE, b"[" + envelope.encode_one(lost) + b"]"):
                await bus.send("invoice.dead", Message(uuid7(), "ORDER_CREATED", body, (), ()))

            async def killed(url: str, service: str, keep: Keep, *, prefix: str) -> int:
                """The commit has happened, the broker does not know yet."""

                async def keep_and_die(found: Sequence[DeadLetter]) -> None:
                    await keep(found)
                    raise Killed

                return await collect(url, service, keep_and_die, prefix=prefix)

            monkeypatch.setattr("ops.dead.letters.collect", killed)
            with pytest.raises(Killed):
                await letters.take_in(owned, broker.url, "invoice", prefix=prefix)
            monkeypatch.undo()
            dead = len(UNDECODABLE) + 1
            assert await letters.take_in(owned, broker.url, "invoice", prefix=prefix) == dead
            assert await letters.take_in(owned, broker.url, "invoice", prefix=prefix) == 0
    finally:
        await broker.remove(prefix, *BINDINGS)
    found = await house.listed()
    assert len(found) == dead
    undecodable = [each for each in found if each["reason"] == "undecodable"]
    assert {each["type"] for each in undecodable} == {"ORDER_CREATED"}
    [finished_never] = [each for each in found if each["reason"] == "NeverFinished"]
    assert finished_never["id"] == str(lost.id)
    for each in undecodable:
        assert "pm_card_secret" not in await house.dead("show", each["id"])
    said = await house.dead("replay", "--all")
    assert said.count("can only be discarded") == len(UNDECODABLE)
    await house.dead("discard", "--reason", "undecodable", "--note", "noise")
    assert not await house.listed()


async def test_it_works_on_the_embedded_system_while_that_runs_and_when_it_does_not(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with orderflow("dead", "list", folder=tmp_path, STATE="state") as process:
        assert await process.ended() == 1
    assert "There is no system in state" in process.said
    event = uninvoiceable()
    async with running(state) as (_, api), database_of(state) as owner:
        await finished(api, (await place(api, "one"))["id"])
        for_invoice = "INSERT INTO invoice.parked (id, type, order_id, body, reason, state, claimed_until) "
        await owner.execute(
            for_invoice + "VALUES ($1, 'ORDER_CREATED', $2, $3, 'Broken', 'dead', now())",
            *(event.id, event.subject, envelope.encode_one(event)),
        )
        async with orderflow(
            "dead", "replay", "--all", "--as", "ana", folder=tmp_path, STATE="state"
        ) as process:
            assert await process.ended() == 0, process.said
        tried = "SELECT id FROM invoice.parked WHERE state = 'dead' AND reason = 'Uninvoiceable'"
        await eventually(lambda: owner.fetch(tried), bool)
    async with orderflow("dead", "list", "--each", folder=tmp_path, STATE="state") as process:
        assert await process.ended() == 0, process.said
    assert str(event.id) in process.said
