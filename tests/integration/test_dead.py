"""`orderflow dead`: dead events and work are listed, shown, replayed and discarded, and it is recorded."""

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
from ops.dead import dead_letters
from ops.main import app
from ops.migrate import ROLES, migrate, url_for
from ops.owner_database import connect_as_owner
from services.invoice.handlers import HANDLERS
from tests import version_1
from tests.conftest import rabbitmq_of
from tests.embedded import database_of, finished, orderflow, running
from tests.factories import an_item, an_order, one_of_each, order_created
from tests.integration.test_ops_run import place
from tests.waiting import eventually, patient_bus

BINDINGS = {"invoice": [type_of(event) for event in HANDLERS]}


def uninvoiceable() -> OrderCreated:
    """An order whose tax is wrong by a cent: the invoice service rejects it."""
    item = an_item(tax=678, total=4658)
    order = an_order(items=(item,), tax=677)
    return OrderCreated.of(Placed(order=order, payment_method="pm_card_visa"))


@dataclass
class System:
    """A database with every schema, and the invoice service on a bus in memory."""

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
        """The output of `orderflow dead …`, run by `actor`."""
        environment = {"DATABASE_URL": self.url, "BROKER_URL": "", "ORDERFLOW_ACTOR": actor}
        result = await asyncio.to_thread(CliRunner().invoke, app, ["dead", *arguments], env=environment)
        assert result.exit_code == status, result.output
        return result.output

    async def listed(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(await self.dead("list", "--json", *arguments))
        return found

    async def reject(self, *events: AnyEvent) -> None:
        """The invoice service receives these events, which it rejects."""
        async with self.invoice_service():
            for message in envelope.messages(events):
                await self.bus.publish(message)


@pytest.fixture
async def system(fresh_database: str) -> System:
    await migrate(fresh_database, {role: role for role in ROLES})
    return System(fresh_database, patient_bus(BINDINGS))


async def test_dead_events_are_listed_in_groups_or_one_by_one(system: System) -> None:
    wrong = [uninvoiceable() for _ in range(3)]
    foreign = one_of_each()["SHIPPED"]
    assert await system.dead("list") == "Nothing is dead.\n"
    await system.reject(*wrong)
    async with system.invoice_service():
        system.bus = patient_bus(BINDINGS)
    await system.rows(
        "INSERT INTO invoice.parked (id, type, order_id, body, reason, state, claimed_until, last_error) "
        "VALUES ($1, 'SHIPPED', $2, $3, 'no_handler', 'dead', now(), 'No handler.')",
        *(foreign.id, foreign.subject, envelope.encode_one(foreign)),
    )
    groups = await system.dead("list")
    assert "     3  invoice   ORDER_CREATED      Uninvoiceable" in groups
    assert "     1  invoice   SHIPPED            no_handler" in groups
    found = {each["id"]: each for each in await system.listed()}
    assert found.keys() == {str(event.id) for event in [*wrong, foreign]}
    one = found[str(wrong[0].id)]
    assert (one["order_id"], one["reason"], one["attempts"]) == (str(wrong[0].subject), "Uninvoiceable", 1)
    assert one["error"]
    lines = (await system.dead("list", "--each", "--reason", "Uninvoiceable")).splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(str(event.id) for event in wrong)
    assert not await system.listed("--service", "email")
    assert "There is no service 'sales'" in await system.dead("list", "--service", "sales", status=1)


async def test_show_masks_the_payment_method(system: System) -> None:
    event = uninvoiceable()
    await system.reject(event)
    said = await system.dead("show", str(event.id))
    assert "Ana Souza" in said
    assert "Uninvoiceable" in said
    assert "pm_card_visa" not in said
    [row] = json.loads(await system.dead("show", "--json", str(event.id)))
    assert row["body"]["data"]["payment_method"] == "***"
    assert "payment_method" not in row["body"]["data"]["order"]
    unknown = str(uuid7())
    assert await system.dead("show", unknown, status=1) == (
        f"Nothing with the id {unknown} is dead or waits for its next try.\n"
    )


@pytest.mark.parametrize("table", ["payments", "refunds", "shipments"])
async def test_show_masks_the_payment_method_where_version_1_has_it(system: System, table: str) -> None:
    order, payment, refund, shipment = (uuid7() for _ in range(4))
    await system.rows(
        "INSERT INTO billing.payments (id, order_id, amount, currency, payment_method, snapshot, state, "
        "claimed_until) VALUES ($1, $2, 1, 'BRL', 'pm_card_visa', $3, 'dead', now())",
        *(payment, order, version_1.INVOICED),
    )
    await system.rows(
        "INSERT INTO billing.refunds (id, order_id, cause, payment_id, amount, currency, snapshot, state, "
        "claimed_until) VALUES ($1, $2, 'SHIPMENT_ERROR', $3, 1, 'BRL', $4, 'dead', now())",
        *(refund, order, payment, version_1.UNDELIVERABLE),
    )
    await system.rows(
        "INSERT INTO shipment.shipments (id, order_id, paid, state, claimed_until) "
        "VALUES ($1, $2, $3, 'dead', now())",
        *(shipment, order, version_1.PAID),
    )
    [row] = [each["id"] for each in await system.listed() if each["type"] == table]
    said = await system.dead("show", row)
    assert "Ana Souza" in said
    assert "***" in said
    assert version_1.PAYMENT_METHOD not in said


async def test_a_replayed_event_is_handled_once_even_if_replayed_twice(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, other = order_created(), uninvoiceable()
    monkeypatch.setattr("services.invoice.handlers.check_invoiceable", _refuse)
    await system.reject(good, other)
    monkeypatch.undo()
    assert len(await system.listed()) == 2
    assert "would be retried" in await system.dead("replay", "--all", "--dry-run")
    assert len(await system.listed()) == 2
    system.bus = patient_bus(BINDINGS)
    async with system.invoice_service():
        for status in (0, 0):
            await system.dead("replay", "--service", "invoice", "--reason", "Uninvoiceable", status=status)
        invoices = "SELECT order_id FROM invoice.invoices"
        await eventually(lambda: system.rows(invoices), bool)
        left = await eventually(system.listed, lambda found: len(found) == 1)
    assert left[0]["id"] == str(other.id)  # still rejected
    assert [row["order_id"] for row in await system.rows(invoices)] == [good.subject]
    acts = await system.rows("SELECT * FROM invoice.interventions WHERE event_id = $1", good.id)
    assert [(act["act"], act["reason"], act["order_id"]) for act in acts] == [
        ("replay", "Uninvoiceable", good.subject)
    ]
    assert acts[0]["actor"] == "ana"


async def test_root_must_name_a_person_before_anything_is_changed(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = uninvoiceable()
    await system.reject(event)
    monkeypatch.setattr("os.getuid", lambda: 0)
    for arguments in (("replay",), ("discard", "--note", "a test order")):
        said = await system.dead(*arguments, "--all", status=1, actor="")
        assert said == (
            "Give your name for the record, with --as NAME or ORDERFLOW_ACTOR=NAME: "
            "the account root does not belong to a person.\n"
        )
        assert len(await system.listed()) == 1
        await system.dead(*arguments, "--all", "--dry-run", actor="")
    await system.dead("discard", "--all", "--note", "a test order", "--as", "Ana Souza", actor="bot")
    [act] = await system.rows("SELECT actor, note FROM invoice.interventions")
    assert (act["actor"], act["note"]) == ("Ana Souza", "a test order")


def _refuse(_: object) -> None:
    from services.invoice.domain import NotInvoiceable  # noqa: PLC0415

    raise NotInvoiceable("not today")


async def test_a_discarded_event_is_kept_with_its_note_and_never_handled(system: System) -> None:
    event = uninvoiceable()
    await system.reject(event)
    await system.dead("discard", str(event.id), "--note", "a test order", "--dry-run")
    assert await system.listed()
    assert "is discarded" in await system.dead("discard", str(event.id), "--note", "a test order")
    assert not await system.listed()
    await system.dead("replay", str(event.id), status=1)
    system.bus = patient_bus(BINDINGS)
    await system.reject(event)  # it comes again
    [row] = await system.rows("SELECT state FROM invoice.parked")
    assert row["state"] == "discarded"
    shown = await system.dead("show", str(event.id))
    assert "a test order" in shown


async def test_replay_and_discard_need_a_selection(system: System) -> None:
    assert "--all" in await system.dead("replay", status=2)
    assert "--note" in await system.dead("discard", "--all", status=2)


async def test_a_dead_payment_can_be_replayed_but_not_discarded(system: System) -> None:
    payment, order = uuid7(), uuid7()
    await system.rows(
        "INSERT INTO billing.payments (id, order_id, amount, currency, payment_method, snapshot, state, "
        "claimed_until, attempts, last_error) "
        "VALUES ($1, $2, 1, 'BRL', 'pm_card_visa', $3, 'dead', now(), 8, 'x')",
        *(payment, order, b'{"order":{"payment_method":"pm_card_visa"}}'),
    )
    [found] = await system.listed()
    assert (found["service"], found["type"], found["order_id"]) == ("billing", "payments", str(order))
    assert "pm_card_visa" not in await system.dead("show", str(payment))
    assert "can't be discarded" in await system.dead("discard", "--all", "--note", "no", status=1)
    await system.dead("replay", "--all")
    [row] = await system.rows("SELECT state, attempts FROM billing.payments")
    assert (row["state"], row["attempts"]) == ("pending", 0)


async def a_mail(system: System, state: str, seconds: int) -> uuid.UUID:
    """A mail that the server did not accept; its claim ends, or it is due, in so many seconds."""
    event = order_created()
    await system.rows(
        "INSERT INTO email.mails (id, order_id, stage, recipient, event, state, claimed_until, attempts, "
        "last_error) VALUES ($1, $2, 'ORDER_CREATED', 'ana@example.com', $3, $4, "
        "now() + make_interval(secs => $5), 7, '452 4.2.2 Mailbox full')",
        *(event.id, event.subject, envelope.encode_one(event), state, seconds),
    )
    return event.id


async def test_a_deferred_mail_can_be_replayed_or_discarded_by_its_id(system: System) -> None:
    first, second = await a_mail(system, "pending", 3600), await a_mail(system, "pending", 3600)
    assert not await system.listed()
    assert "Mailbox full" in await system.dead("show", str(first))
    assert await system.dead("discard", "--all", "--note", "no") == "Nothing was changed.\n"
    assert "is retried now" in await system.dead("replay", str(first))
    assert "is discarded" in await system.dead("discard", str(second), "--note", "She changed her address.")
    rows = {
        row["id"]: row
        for row in await system.rows("SELECT *, claimed_until <= now() AS due FROM email.mails")
    }
    assert (rows[first]["state"], rows[first]["attempts"], rows[first]["due"]) == ("pending", 0, True)
    assert (rows[second]["state"], rows[second]["attempts"]) == ("refused", 7)
    acts = await system.rows("SELECT act, event_id, note FROM email.interventions ORDER BY id")
    assert [tuple(act) for act in acts] == [
        ("replay", first, None),
        ("discard", second, "She changed her address."),
    ]


async def test_a_mail_that_a_process_may_be_sending_is_not_changed(system: System) -> None:
    mail = str(await a_mail(system, "pending", 10))
    assert "waits for its next try" in await system.dead("replay", mail, status=1)
    assert "waits for its next try" in await system.dead("discard", mail, "--note", "no", status=1)
    [row] = await system.rows("SELECT state, attempts FROM email.mails")
    assert tuple(row) == ("pending", 7)


async def test_an_id_selects_the_dead_event_and_not_the_mail_about_it(system: System) -> None:
    mail = await a_mail(system, "pending", 3600)
    await system.rows(
        "INSERT INTO invoice.parked (id, type, body, reason, state, claimed_until) "
        "VALUES ($1, 'ORDER_CREATED', '{}', 'Broken', 'dead', now())",
        mail,
    )
    await system.dead("discard", str(mail), "--note", "a test order")
    [row] = await system.rows("SELECT state FROM email.mails")
    assert row["state"] == "pending"


async def test_a_dead_mail_can_be_replayed_or_discarded(system: System) -> None:
    first, second = await a_mail(system, "dead", 0), await a_mail(system, "dead", 0)
    assert len(await system.listed()) == 2
    await system.dead("discard", str(first), "--note", "It did arrive.")
    await system.dead("replay", "--all")
    rows = {row["id"]: row["state"] for row in await system.rows("SELECT id, state FROM email.mails")}
    assert rows == {first: "refused", second: "pending"}


class Killed(Exception):
    """The process has died."""


Keep = Callable[[Sequence[DeadLetter]], Awaitable[None]]
UNDECODABLE = (b"", b"not JSON", b"\xff\x00{", b'{"payment_method": "pm_card_secret"}')


@pytest.mark.parametrize("rabbitmq_name", ["rabbitmq-4", "rabbitmq-local"])
async def test_messages_that_could_not_be_decoded_are_imported_once_even_if_killed_in_between(
    request: pytest.FixtureRequest, system: System, rabbitmq_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.param = rabbitmq_name
    broker, prefix = rabbitmq_of(request), f"test-{uuid.uuid4().hex[:12]}."
    await declare(broker.url, BINDINGS, prefix=prefix)
    lost = order_created()
    try:
        async with (
            RabbitMQBus(broker.url, prefix=prefix) as bus,
            connect_as_owner(system.url, "test") as owned,
        ):
            for body in (*UNDECODABLE, b"[" + envelope.encode_one(lost) + b"]"):
                await bus.send("invoice.dead", Message(uuid7(), "ORDER_CREATED", body, (), ()))

            async def killed(url: str, service: str, keep: Keep, *, prefix: str) -> int:
                """Dies after the commit and before the acknowledgement."""

                async def keep_and_die(found: Sequence[DeadLetter]) -> None:
                    await keep(found)
                    raise Killed

                return await collect(url, service, keep_and_die, prefix=prefix)

            monkeypatch.setattr("ops.dead.dead_letters.collect", killed)
            with pytest.raises(Killed):
                await dead_letters.import_from_broker(owned, broker.url, "invoice", prefix=prefix)
            monkeypatch.undo()
            dead = len(UNDECODABLE) + 1
            assert await dead_letters.import_from_broker(owned, broker.url, "invoice", prefix=prefix) == dead
            assert await dead_letters.import_from_broker(owned, broker.url, "invoice", prefix=prefix) == 0
    finally:
        await broker.remove(prefix, *BINDINGS)
    found = await system.listed()
    assert len(found) == dead
    undecodable = [each for each in found if each["reason"] == "undecodable"]
    assert {each["type"] for each in undecodable} == {"ORDER_CREATED"}
    [never_finished] = [each for each in found if each["reason"] == "NeverFinished"]
    assert never_finished["id"] == str(lost.id)
    for each in undecodable:
        assert "pm_card_secret" not in await system.dead("show", each["id"])
    said = await system.dead("replay", "--all")
    assert said.count("only discard it") == len(UNDECODABLE)
    await system.dead("discard", "--reason", "undecodable", "--note", "noise")
    assert not await system.listed()


async def test_it_works_on_the_embedded_system_running_or_stopped(tmp_path: Path) -> None:
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
