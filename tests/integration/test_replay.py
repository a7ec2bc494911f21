"""`orderflow replay`: gaps are filled from the outboxes, and replaying everything changes nothing."""

import asyncio
import hashlib
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
from typer.testing import CliRunner

from chassis import database
from events import envelope
from events.contracts import AnyEvent, type_of
from events.participant import Participant
from events.transactions import Transactions
from ops.main import app
from ops.migrate import ROLES, migrate, url_for
from services.invoice.handlers import HANDLERS
from tests.embedded import EXAMPLES, database_of, finished, running
from tests.factories import order_created
from tests.waiting import eventually, patient_bus

ORDER = json.loads((EXAMPLES / "order.json").read_text("utf-8"))


async def orderflow(*arguments: str, status: int = 0, **environment: str) -> str:
    """The command's output."""
    unset = {"DATABASE_URL": "", "BROKER_URL": "", "STATE": "", "ORDERFLOW_ACTOR": "ana"}
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments, env=unset | environment)
    assert result.exit_code == status, result.output
    return result.output


async def announced(url: str, events: Sequence[AnyEvent]) -> None:
    """The order service has published these, a message for every two."""
    order = url_for(url, "order", "order")
    async with database.connect(order, pool=1, application="test") as pool:
        for start in range(0, len(events), 2):
            async with Transactions(pool)() as tx:
                tx.emit(*events[start : start + 2])
        async with Transactions(pool)() as tx:
            await tx.execute("UPDATE outbox SET state = 'published', published_at = now()")


async def test_missing_events_go_to_one_service_alone_and_those_it_has_stay(
    fresh_database: str,
) -> None:
    await migrate(fresh_database, {role: role for role in ROLES})
    events = [order_created() for _ in range(130)]
    await announced(fresh_database, events)
    owner = await asyncpg.connect(fresh_database.replace("+asyncpg", ""))
    has, dead = events[0], events[1]
    await owner.execute("INSERT INTO invoice.inbox (event_id) VALUES ($1), ($2)", has.id, dead.id)
    await owner.execute(
        "INSERT INTO invoice.parked (id, type, body, reason, state, claimed_until) "
        "VALUES ($1, 'ORDER_CREATED', $2, 'Broken', 'dead', now())",
        *(dead.id, envelope.encode_one(dead)),
    )

    async def replay(*arguments: str) -> str:
        since = () if "--since" in arguments else ("--since", "1h")
        return await orderflow(
            "replay", "--service", "invoice", *since, *arguments, DATABASE_URL=fresh_database
        )

    async def waiting() -> int:
        return int(await owner.fetchval("SELECT count(*) FROM invoice.parked WHERE state = 'retry'"))

    nothing = "Nothing is missing at invoice.\n"
    assert await replay("--type", "SHIPPED") == nothing
    assert await replay("--until", "30m") == nothing
    assert await replay("--order", str(uuid.uuid4())) == nothing
    assert await replay("--dry-run") == "128 ORDER_CREATED events would be handed to invoice.\n"
    assert await waiting() == 0
    one = events[7]
    assert await replay("--order", str(one.subject)) == "1 ORDER_CREATED events were handed to invoice.\n"
    assert await replay() == "127 ORDER_CREATED events were handed to invoice.\n"
    assert await replay() == nothing
    assert await waiting() == 128
    assert await replay("--again", "--dry-run") == "1 ORDER_CREATED events would be handed to invoice.\n"
    for service in ("order", "email", "billing", "shipment"):
        assert not await owner.fetchval(f'SELECT count(*) FROM "{service}".parked')
    acts = await owner.fetch("SELECT * FROM invoice.interventions WHERE act = 'refill'")
    assert {act["actor"] for act in acts} == {"ana"}
    assert [act["order_id"] for act in acts] == [one.subject, *[None] * (len(acts) - 1)]
    assert sum(int(act["note"].split()[0]) for act in acts) == 128

    bus = patient_bus({"invoice": [type_of(event) for event in HANDLERS]})
    invoice = url_for(fresh_database, "invoice", "invoice")
    async with database.connect(invoice, pool=4, application="test") as pool:
        participant = Participant("invoice", HANDLERS, Transactions(pool), bus, sweep_seconds=0.1)
        task = asyncio.create_task(participant.run())
        await eventually(waiting, lambda count: not count)
        participant.stop()
        bus.close()
        await task
    invoiced = {row["order_id"] for row in await owner.fetch("SELECT order_id FROM invoice.invoices")}
    assert invoiced == {event.subject for event in events} - {has.subject, dead.subject}
    [row] = await owner.fetch("SELECT id, state FROM invoice.parked")
    assert (row["id"], row["state"]) == (dead.id, "dead")
    await owner.close()


async def test_an_option_that_can_not_be_understood_is_named(fresh_database: str) -> None:
    url = {"DATABASE_URL": fresh_database}
    assert "no service 'sales'" in await orderflow(
        "replay", "--service", "sales", "--since", "1h", status=1, **url
    )
    said = await orderflow("replay", "--service", "invoice", "--since", "yesterday", status=2, **url)
    assert "--since" in said
    assert "2026-11-24T09:30Z" in said


# Replaying changes nothing

BOOKKEEPING = {"inbox", "outbox", "parked", "attempts", "interventions", "alembic_version"}
ENDINGS = {
    "SHIPPED": {},
    "PAYMENT_FAILED": {"payment_method": "pm_card_chargeDeclined"},
    "PAYMENT_REFUNDED": {"shipping_address": ORDER["shipping_address"] | {"country": "AQ"}},
}
UNFINISHED = """
    SELECT (SELECT count(*) FROM billing.payments WHERE state = 'pending')
        + (SELECT count(*) FROM billing.refunds WHERE state = 'pending')
        + (SELECT count(*) FROM shipment.shipments WHERE state = 'pending')
        + (SELECT count(*) FROM email.mails WHERE state = 'pending')"""
SERVICES = ("order", "invoice", "billing", "shipment", "email")


class Records:
    """All that the embedded system knows, as its owner sees it, and the mails that it sent."""

    def __init__(self, owner: "asyncpg.Connection[Any]", state: Path) -> None:
        self.owner = owner
        self.mails = state / "mails"

    async def hashes(self) -> dict[str, str]:
        """A hash of every table's rows, and of the mails; what was announced counts, not when it was sent."""
        tables = await self.owner.fetch(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname = ANY($1)",
            [*SERVICES, "provider", "carrier"],
        )
        found: dict[str, str] = {}
        for schema, table in tables:
            if table.split("_2")[0].removesuffix("_default") not in BOOKKEEPING:
                rows = await self.owner.fetch(f'SELECT t::text FROM "{schema}"."{table}" AS t ORDER BY 1')
                found[f"{schema}.{table}"] = hashlib.sha256(repr(rows).encode()).hexdigest()
        for schema in SERVICES:
            rows = await self.owner.fetch(f'SELECT id, body FROM "{schema}".outbox ORDER BY id')
            found[f"{schema}.outbox"] = hashlib.sha256(repr(rows).encode()).hexdigest()
        names = sorted((file.name, file.read_bytes()) for file in self.mails.iterdir())
        return found | {"mails": hashlib.sha256(repr(names).encode()).hexdigest()}

    async def unfinished(self) -> int:
        """The number of rows still under way."""
        count = int(await self.owner.fetchval(UNFINISHED))
        for schema in SERVICES:
            count += await self.owner.fetchval(f"""
                SELECT (SELECT count(*) FROM "{schema}".outbox WHERE state = 'pending')
                    + (SELECT count(*) FROM "{schema}".parked WHERE state = 'retry')""")
        return count

    async def taken_over(self) -> list[int]:
        """How many events each service has in its inbox."""
        return [await self.owner.fetchval(f'SELECT count(*) FROM "{name}".inbox') for name in SERVICES]

    async def at_rest(self) -> None:
        """Returns when all is done, and fails if something was set aside."""
        await eventually(self.unfinished, lambda count: not count)
        for schema in SERVICES:
            assert not await self.owner.fetch(f'SELECT type, reason, last_error FROM "{schema}".parked')

    async def publish_all_again(self) -> None:
        """Every message there ever was is on its way once more, in random order."""
        for schema in SERVICES:
            await self.owner.execute(f"""
                UPDATE "{schema}".outbox
                SET state = 'pending', claimed_until = now() - random() * interval '1 hour'""")


async def test_replaying_and_publishing_everything_again_in_any_order_changes_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with running(state) as (_, api), database_of(state) as owner:
        records = Records(owner, state)
        for ending, changes in ENDINGS.items():
            for _ in range(3):
                placed = (await api.post("/orders", json=ORDER | changes)).raise_for_status().json()
                assert (await finished(api, placed["id"]))["status"] == ending
        await records.at_rest()
        before, taken_over = await records.hashes(), await records.taken_over()

        for _ in range(2):  # by hand, at every service
            for service in SERVICES:
                said = await orderflow(
                    "replay", "--again", "--service", service, "--since", "1h", STATE=str(state)
                )
                assert "were handed to" in said
                await owner.execute(f"""
                    UPDATE "{service}".parked SET claimed_until = now() - random() * interval '1 hour'
                    WHERE state = 'retry'""")
            await records.at_rest()
            assert await records.hashes() == before

        for _ in range(2):  # by the bus
            await records.publish_all_again()
            await records.at_rest()
            assert await records.hashes() == before

        async with owner.transaction():  # and as if nothing had ever arrived
            for service in SERVICES:
                await owner.execute(f'DELETE FROM "{service}".inbox')
            await records.publish_all_again()
        await records.at_rest()
        assert await records.hashes() == before
        assert await records.taken_over() == taken_over
