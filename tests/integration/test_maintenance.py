"""A service's chores: each deletes only rows past their lifetime, and none stops the service."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import make_url
from uuid_utils.compat import uuid7

from chassis import database, health
from chassis.service import open_service
from events.cleaners import BATCH, AttemptsCleaner, DefaultPartitionCleaner, InterventionsCleaner
from events.clock import ClockWatch
from events.errors import Unavailable
from events.maintenance import AGAIN_SECONDS, Chore, Maintenance
from events.memory import MemoryBus
from events.transaction import Transaction
from events.transactions import Transactions
from ops.services import SERVICES, load
from services.email.cleaner import OldMailCleaner
from services.order.key_cleaner import IdempotencyKeyCleaner
from tests.aws_template import ROOT, read

LIFETIME: Final = timedelta(days=10)


class Counting(Transactions):
    """Transactions that are counted."""

    count = 0

    @asynccontextmanager
    async def __call__(self, *, optimistic: bool = False) -> AsyncIterator[Transaction]:
        self.count += 1
        async with super().__call__(optimistic=optimistic) as tx:
            yield tx


@asynccontextmanager
async def counting(url: str) -> AsyncIterator[Counting]:
    async with database.connect(url, pool=2, application="test") as pool:
        yield Counting(pool)


async def fetched(transactions: Transactions, statement: str, *arguments: object) -> list[Any]:
    async with transactions() as tx:
        return [tuple(row) for row in await tx.fetch(statement, *arguments)]


# The cleaners


async def test_counts_of_attempts_are_deleted_long_after_the_last_attempt(transactions: Transactions) -> None:
    await fetched(
        transactions,
        """INSERT INTO attempts SELECT gen_random_uuid(), n, now() - n * interval '1 day'
           FROM unnest(ARRAY[1, 9, 11, 400]) n""",
    )
    await AttemptsCleaner(LIFETIME).run(transactions)
    assert await fetched(transactions, "SELECT count FROM attempts ORDER BY 1") == [(1,), (9,)]


async def test_old_interventions_are_deleted(transactions: Transactions) -> None:
    await fetched(
        transactions,
        """INSERT INTO interventions (at, actor, act) SELECT now() - n * interval '1 day', 'ana', n::text
           FROM unnest(ARRAY[1, 9, 11, 400]) n""",
    )
    await InterventionsCleaner(LIFETIME).run(transactions)
    assert await fetched(transactions, "SELECT act FROM interventions ORDER BY 1") == [("1",), ("9",)]


async def test_default_partitions_keep_young_and_unfinished_rows(transactions: Transactions) -> None:
    """Ids of 1970 are in no week."""
    await fetched(
        transactions,
        """INSERT INTO outbox (id, type, body, event_ids, order_ids, state, claimed_until, published_at)
           SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, state || n, '', '{}', '{}',
               state, now(), CASE state WHEN 'published' THEN now() - n * interval '1 day' END
           FROM unnest(ARRAY[1, 29, 31, 400], ARRAY['published', 'published', 'published', 'dead'])
               AS row (n, state)""",
    )
    await fetched(
        transactions,
        """INSERT INTO inbox SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid,
               now() - n * interval '1 day'
           FROM unnest(ARRAY[1, 31, 59, 61]) n""",
    )
    await DefaultPartitionCleaner().run(transactions)
    assert await fetched(transactions, "SELECT type FROM outbox ORDER BY id") == [
        ("published1",),
        ("published29",),
        ("dead400",),
    ]
    left = await fetched(transactions, "SELECT right(event_id::text, 2)::int FROM inbox ORDER BY 1")
    assert left == [(1,), (31,), (59,)]


async def test_old_rows_are_deleted_in_small_batches(fresh_database: str, transactions: Transactions) -> None:
    await fetched(
        transactions,
        """INSERT INTO attempts SELECT gen_random_uuid(), 1, now() - interval '1 year'
           FROM generate_series(1, $1)""",
        2 * BATCH + 1,
    )
    async with counting(fresh_database) as counted:
        await AttemptsCleaner(LIFETIME).run(counted)
        assert counted.count == 3
    assert await fetched(transactions, "SELECT FROM attempts") == []


async def test_a_locked_row_is_left_for_the_next_time(transactions: Transactions) -> None:
    event_id = uuid7()
    await fetched(transactions, "INSERT INTO attempts VALUES ($1, 1, now() - interval '1 year')", event_id)
    async with transactions() as tx:
        await tx.fetch("SELECT FROM attempts FOR UPDATE")
        async with asyncio.timeout(30):
            await AttemptsCleaner(LIFETIME).run(transactions)
    assert await fetched(transactions, "SELECT event_id FROM attempts") == [(event_id,)]
    await AttemptsCleaner(LIFETIME).run(transactions)
    assert await fetched(transactions, "SELECT FROM attempts") == []


async def test_old_idempotency_keys_are_deleted_and_their_orders_stay(
    service_url: Callable[[str], Awaitable[str]],
) -> None:
    async with counting(await service_url("order")) as transactions:
        await fetched(
            transactions,
            """WITH made AS (
                   INSERT INTO orders SELECT gen_random_uuid(), now(), n::text, 'EUR', 1, ''
                   FROM unnest(ARRAY[1, 9, 11]) n RETURNING id, reference)
               INSERT INTO idempotency_keys
               SELECT reference, '', id, now() - reference::int * interval '1 day' FROM made""",
        )
        await IdempotencyKeyCleaner(LIFETIME).run(transactions)
        assert await fetched(transactions, "SELECT key FROM idempotency_keys ORDER BY 1") == [("1",), ("9",)]
        assert len(await fetched(transactions, "SELECT FROM orders")) == 3


async def test_an_old_mail_keeps_no_event(
    service_url: Callable[[str], Awaitable[str]],
) -> None:
    async with counting(await service_url("email")) as transactions:
        await fetched(
            transactions,
            """INSERT INTO mails (id, order_id, stage, recipient, event, written_at, state, claimed_until,
                   message_id)
               SELECT gen_random_uuid(), gen_random_uuid(), state || n, 'ana@example.com', '{}',
                   now() - n * interval '1 day', state, now(), '<1>'
               FROM unnest(ARRAY['sent', 'sent', 'refused', 'pending', 'dead'], ARRAY[9, 11, 11, 400, 400])
                   AS row (state, n)""",
        )
        await OldMailCleaner(LIFETIME).run(transactions)
        assert await fetched(
            transactions, "SELECT stage, event, recipient, message_id FROM mails ORDER BY 1"
        ) == [
            ("dead400", b"{}", "ana@example.com", "<1>"),
            ("pending400", b"{}", "ana@example.com", "<1>"),
            ("refused11", b"", "ana@example.com", "<1>"),
            ("sent11", b"", "ana@example.com", "<1>"),
            ("sent9", b"{}", "ana@example.com", "<1>"),
        ]


# Their lifetimes are settings


SETTINGS: Final = {
    "order": {"ATTEMPTS_DAYS", "INTERVENTIONS_DAYS", "IDEMPOTENCY_KEY_DAYS"},
    "invoice": {"ATTEMPTS_DAYS", "INTERVENTIONS_DAYS"},
    "billing": {"ATTEMPTS_DAYS", "INTERVENTIONS_DAYS"},
    "shipment": {"ATTEMPTS_DAYS", "INTERVENTIONS_DAYS"},
    "email": {"ATTEMPTS_DAYS", "INTERVENTIONS_DAYS", "MAIL_EVENT_DAYS"},
}
CLEANERS: Final[dict[str, type]] = {
    "ATTEMPTS_DAYS": AttemptsCleaner,
    "INTERVENTIONS_DAYS": InterventionsCleaner,
    "IDEMPOTENCY_KEY_DAYS": IdempotencyKeyCleaner,
    "MAIL_EVENT_DAYS": OldMailCleaner,
}
DEFAULTS: Final = {
    "ATTEMPTS_DAYS": 60,
    "INTERVENTIONS_DAYS": 730,
    "IDEMPOTENCY_KEY_DAYS": 30,
    "MAIL_EVENT_DAYS": 30,
}


@pytest.mark.parametrize("service", SERVICES)
async def test_each_lifetime_is_a_setting_of_the_service(
    service: str, service_url: Callable[[str], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await service_url(service)
    needed: dict[str, dict[str, object]] = {
        "billing": {"provider_database_url": url},
        "shipment": {"carrier_database_url": url},
        "email": {"mail_record_only": True},
    }
    for days in (None, 7):
        for name in DEFAULTS:
            if days:
                monkeypatch.setenv(name, str(days))
            else:
                monkeypatch.delenv(name, raising=False)
        kind = load(service)
        bus = MemoryBus({service: []})
        async with open_service(
            kind, kind.settings(database_url=url, **needed.get(service, {})), bus
        ) as running:
            chores = list(running.participant.maintenance.chores)
        lifetimes = {
            name: getattr(chore, "lifetime").days  # noqa: B009  # not every chore has one
            for chore in chores
            for name, cleaner in CLEANERS.items()
            if isinstance(chore, cleaner)
        }
        assert lifetimes == {name: days or DEFAULTS[name] for name in SETTINGS[service]}


@pytest.mark.parametrize("name", DEFAULTS)
def test_each_lifetime_can_be_set_in_every_form(name: str) -> None:
    services = {service for service, names in SETTINGS.items() if name in names}
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    template = read("template.yaml")
    everywhere = template["Globals"]["Function"]["Environment"]["Variables"]
    assert f"#{name}={DEFAULTS[name]}\n" in (ROOT / ".env.example").read_text("utf-8")
    assert compose.count(f"{name}:\n") == 1
    for service in services:
        function = template["Resources"][f"{service.capitalize()}Function"]["Properties"]
        parameter = (everywhere | function["Environment"]["Variables"])[name]["Ref"]
        assert template["Parameters"][parameter]["Default"] == DEFAULTS[name]


# How chores run


class Errand:
    """A chore that ends as the test says."""

    every = 1000.0

    def __init__(self, name: str, *ends: Exception | None) -> None:
        self.name = name
        self.ends = list(ends)
        self.runs = 0

    async def run(self, transactions: Transactions) -> None:
        self.runs += 1
        if self.ends and (error := self.ends.pop(0)):
            raise error


async def pauses_of(transactions: Transactions, chore: Chore, rounds: int) -> list[float]:
    """The pause after each round, in seconds."""
    slept: list[float] = []
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == rounds:
            enough.set()
            await asyncio.Event().wait()

    keeping = asyncio.create_task(Maintenance("test", transactions, [chore], sleep=sleep).run())
    async with asyncio.timeout(30):
        await enough.wait()
    keeping.cancel()
    return slept


@pytest.mark.parametrize("error", [Unavailable("locked"), RuntimeError("a defect")])
async def test_a_chore_that_failed_is_tried_again_within_a_minute(
    transactions: Transactions, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    chore = Errand("things", None, error, None)
    usual, soon, usual_again = await pauses_of(transactions, chore, rounds=3)
    assert 800 <= usual <= 1200
    assert AGAIN_SECONDS[0] <= soon <= AGAIN_SECONDS[1]
    assert 800 <= usual_again <= 1200
    [told] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert told.levelno == (logging.WARNING if isinstance(error, Unavailable) else logging.ERROR)


async def test_a_chore_that_fails_stops_no_other(transactions: Transactions) -> None:
    failing, other = Errand("failing", RuntimeError("a defect")), Errand("other")
    await Maintenance("test", transactions, [failing, other]).run_once()
    assert (failing.runs, other.runs) == (1, 1)


# The clock


@asynccontextmanager
async def with_clock_moved(url: str, by: str) -> AsyncIterator[Transactions]:
    """Transactions on a database whose clock differs from ours by this interval."""
    connection = await asyncpg.connect(url.replace("+asyncpg", "", 1))
    await connection.execute(
        f"""CREATE SCHEMA moved;
            CREATE FUNCTION moved.clock_timestamp() RETURNS timestamptz LANGUAGE sql
                AS $$ SELECT pg_catalog.clock_timestamp() + interval '{by}' $$;
            ALTER DATABASE "{make_url(url).database}" SET search_path TO moved, public, pg_catalog"""
    )
    await connection.close()
    async with database.connect(url, pool=2, application="test") as pool:
        yield Transactions(pool)


@pytest.mark.parametrize(
    ("by", "status", "said"),
    [
        ("0 s", 200, "ok"),
        ("50 s", 200, "ok"),
        ("-50 s", 200, "ok"),
        ("-35 days", 503, r"the clock is \d+ s ahead of the database's"),
        ("70 s", 503, r"the clock is \d+ s behind the database's"),
    ],
)
async def test_a_process_whose_clock_is_wrong_is_not_ready(
    fresh_database: str, by: str, status: int, said: str
) -> None:
    async with with_clock_moved(fresh_database, by) as transactions:
        app = FastAPI()
        app.include_router(health.routes([transactions]))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            answer = await client.get("/readyz")
    assert answer.status_code == status
    assert re.fullmatch(said, answer.json()["status"])


async def test_a_wrong_clock_is_a_warning_once(fresh_database: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    watch = ClockWatch()
    async with with_clock_moved(fresh_database, "-35 days") as transactions:
        await watch.run(transactions)
        await watch.run(transactions)
        async with transactions() as tx:
            await tx.execute("DROP FUNCTION moved.clock_timestamp()")
        await watch.run(transactions)
    assert [record.levelname for record in caplog.records if record.name == "events.clock"] == [
        "WARNING",
        "INFO",
    ]
