"""A system takes over a database that processes of version 1 have left in the midst of their work."""

import json
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import httpx
import pytest
from uuid_utils.compat import uuid7

from ops.audit.audit import audit
from ops.audit.ledger import ledger_of
from ops.migrate import migrate, passwords_from_environment
from ops.services import SERVICES
from ops.target import Target
from tests.embedded import finished, running
from tests.integration.conftest import WAITING
from tests.samples import ROWS_OF_VERSION_1, VERSION_1
from tests.waiting import eventually

Owner: TypeAlias = "asyncpg.Connection[Any]"

CREATED, INVOICED = "ORDER_CREATED", "INVOICE_CREATED"
BODIES = " UNION ALL ".join(f'SELECT type, body FROM "{service}".outbox' for service in SERVICES)


class Sample:
    """The order of the samples as version 1 writes it, but with an id and a key of its own."""

    def __init__(self) -> None:
        self.order_id = uuid7()
        self.event_ids = {event_type: uuid7() for event_type in (CREATED, INVOICED)}

    def message(self, event_type: str) -> bytes:
        """The message of this type."""
        body = (VERSION_1 / f"{event_type}.json").read_bytes()
        [event] = json.loads(body)
        own_id = str(self.event_ids[event_type])
        return self._renamed(body, event["data"]["order"]).replace(event["id"].encode(), own_id.encode())

    def row(self, column: str) -> bytes:
        """The content of a column that holds an order; named schema.table.column."""
        body = (ROWS_OF_VERSION_1 / f"{column}.json").read_bytes()
        return self._renamed(body, json.loads(body))

    def _renamed(self, body: bytes, order: dict[str, Any]) -> bytes:
        own = {order["id"]: str(self.order_id), order["key_hash"]: sha256(self.order_id.bytes).hexdigest()}
        for was, becomes in own.items():
            body = body.replace(was.encode(), becomes.encode())
        return body


async def announce(owner: Owner, service: str, sample: Sample, event_type: str, state: str) -> None:
    """Adds the message to the service's outbox; its process has died."""
    await owner.execute(
        f"""
        INSERT INTO "{service}".outbox
            (id, type, body, event_ids, order_ids, state, claimed_until, published_at)
        VALUES ($1, $2, $3, $4, $5, $6, now(), CASE WHEN $6 = 'published' THEN now() END)""",
        *(uuid7(), event_type, sample.message(event_type), [sample.event_ids[event_type]]),
        *([sample.order_id], state),
    )


async def accept(owner: Owner, sample: Sample, state: str = "pending") -> None:
    """Adds the order with its ORDER_CREATED."""
    await owner.execute(
        """INSERT INTO "order".orders (id, created_at, reference, currency, total, snapshot)
        VALUES ($1, now(), 'WEB-1042', 'BRL', 9663, $2)""",
        *(sample.order_id, sample.row("order.orders.snapshot")),
    )
    await owner.execute(
        """INSERT INTO "order".timeline (order_id, event_id, type, time, facts)
        VALUES ($1, $2, 'ORDER_CREATED', now(), '{}')""",
        *(sample.order_id, sample.event_ids[CREATED]),
    )
    await announce(owner, "order", sample, CREATED, state)


async def invoice(owner: Owner, sample: Sample) -> None:
    """Adds the order's invoice with its INVOICE_CREATED. The mail about the order is sent."""
    await owner.execute("INSERT INTO invoice.invoice_counters (year, last) VALUES (2026, 1)")
    await owner.execute(
        """INSERT INTO invoice.invoices (year, serial, order_id, issued_at, snapshot)
        VALUES (2026, 1, $1, '2026-11-22T12:00:01.123463Z', $2)""",
        *(sample.order_id, sample.row("invoice.invoices.snapshot")),
    )
    for service in ("invoice", "email"):
        statement = f"INSERT INTO {service}.inbox (event_id) VALUES ($1)"
        await owner.execute(statement, sample.event_ids[CREATED])
    await owner.execute(
        """INSERT INTO email.mails (id, order_id, stage, recipient, event, state, claimed_until)
        VALUES ($1, $2, 'ORDER_CREATED', 'ana@example.com', $3, 'pending', now())""",
        *(sample.event_ids[CREATED], sample.order_id, sample.message(CREATED)[1:-1]),
    )
    await announce(owner, "invoice", sample, INVOICED, "pending")


@pytest.fixture
async def owner(fresh_database: str) -> AsyncIterator[Owner]:
    """The owner of a migrated database without orders."""
    await migrate(fresh_database, passwords_from_environment())
    connection = await asyncpg.connect(fresh_database.replace("+asyncpg", ""))
    yield connection
    await connection.close()


async def test_orders_of_version_1_come_to_their_end_and_the_token_into_no_further_event(
    fresh_database: str, owner: Owner, tmp_path: Path
) -> None:
    created, invoiced = Sample(), Sample()
    await accept(owner, created)
    await accept(owner, invoiced, "published")
    await invoice(owner, invoiced)

    async with running(tmp_path / "state", DATABASE_URL=fresh_database) as (_, api):
        for sample in (created, invoiced):
            order = await finished(api, str(sample.order_id))
            assert (order["status"], order["total"]) == ("SHIPPED", "96.63")
        await _is_idle(owner)
        assert (await _invoice_of(api, owner, created))["total"] == "96.63"

    later = [row for row in await owner.fetch(BODIES) if row["type"] not in (CREATED, INVOICED)]
    assert {row["type"] for row in later} == {"PAYMENT_CONFIRMED", "SHIPPED"}
    assert all(b':2","data"' in row["body"] and b"pm_card_visa" not in row["body"] for row in later)
    [issued] = [row["body"] for row in await owner.fetch(BODIES) if b":INVOICE_CREATED:2" in row["body"]]
    [event] = json.loads(issued)
    assert event["data"]["payment_method"] == "pm_card_visa"
    assert "payment_method" not in event["data"]["order"]
    report = await audit(Target(fresh_database, None), ledger=ledger_of(fresh_database), quiet=True)
    assert report.breaches == ()
    assert report.orders == 2


async def _is_idle(owner: Owner) -> None:
    await eventually(
        lambda: owner.fetchval(f"SELECT count(*) FROM ({WAITING}) w"),
        lambda n: n == 0,
    )


async def _invoice_of(api: httpx.AsyncClient, owner: Owner, sample: Sample) -> dict[str, Any]:
    number = await owner.fetchval(
        "SELECT year || '-' || lpad(serial::text, 6, '0') FROM invoice.invoices WHERE order_id = $1",
        sample.order_id,
    )
    answer = await api.get(f"/invoices/{number}", headers={"Accept": "application/json"})
    document: dict[str, Any] = answer.raise_for_status().json()
    return document
