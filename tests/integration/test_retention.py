"""Retention beside the rest: what was forgotten is no breach to the audit, and is not sent again."""

from typing import Any
from uuid import UUID

import asyncpg
import pytest

from chassis import database
from events.transactions import Transactions
from ops.audit.audit import audit
from ops.audit.ledger import ledger_of
from ops.services import SERVICES
from ops.subscriptions import subscriptions, undelivered
from ops.target import Target


async def owner(url: str) -> "asyncpg.Connection[Any]":
    return await asyncpg.connect(url.replace("+asyncpg", "", 1))


async def forget_inboxes(connection: "asyncpg.Connection[Any]", days: int) -> None:
    """The outboxes still have everything: an unfinished message of its week keeps it."""
    for service in SERVICES:
        await connection.execute(f'DELETE FROM "{service}".inbox')
        await connection.execute(
            f"UPDATE \"{service}\".outbox SET published_at = published_at - $1::int * interval '1 day'", days
        )


async def test_the_audit_finds_nothing_wrong_with_what_has_outlived_its_time(journeyed: str) -> None:
    """Idempotency keys and inbox rows are deleted, and mails have no event."""
    connection = await owner(journeyed)
    await forget_inboxes(connection, 61)
    await connection.execute('DELETE FROM "order".idempotency_keys')
    await connection.execute(
        "UPDATE email.mails SET event = '', written_at = written_at - interval '61 days'"
    )
    await connection.execute("""UPDATE "order".timeline SET time = time - interval '61 days'""")
    await connection.close()
    report = await audit(Target(journeyed, None), ledger=ledger_of(journeyed), quiet=True)
    assert [breach.sentence for breach in report.breaches] == []


@pytest.mark.parametrize(("days", "missing"), [(29, True), (31, False)])
async def test_a_message_beyond_the_outbox_lifetime_does_not_count_as_undelivered(
    journeyed: str, days: int, missing: bool
) -> None:
    connection = await owner(journeyed)
    await forget_inboxes(connection, days)
    await connection.close()
    async with (
        database.connect(journeyed, pool=1, application="test") as pool,
        Transactions(pool)() as tx,
    ):
        found = [
            message
            for subscription in subscriptions()
            for message in await undelivered(tx, subscription, UUID(int=0), 1000, grace=0)
        ]
    assert bool(found) is missing
