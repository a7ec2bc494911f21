"""The database that a real system has written, copied for each test."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import make_url

from ops.services import SERVICES
from tests.conftest import new_database
from tests.embedded import EXAMPLES, finished, running
from tests.waiting import eventually

ORDER = json.loads((EXAMPLES / "order.json").read_text("utf-8"))
WAITING = " UNION ALL ".join(
    [f"SELECT FROM \"{service}\".outbox WHERE state = 'pending'" for service in SERVICES]
    + ["SELECT FROM email.mails WHERE state = 'pending'"]
)
"""Queries for work that may end a little later than the orders."""
KINDS: dict[str, dict[str, Any]] = {
    "shipped": {},
    "declined": {"payment_method": "pm_card_chargeDeclined"},
    "refunded": {"shipping_address": ORDER["shipping_address"] | {"country": "AQ"}},
}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def journeys(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Name of a template database in which a real system has brought an order of each kind to its end."""
    async with new_database(postgres) as url:
        state = tmp_path_factory.mktemp("audit") / "state"
        async with running(state, DATABASE_URL=url) as (_, api):
            for kind, changes in KINDS.items():
                placed = await api.post("/orders", json=ORDER | changes | {"reference": kind})
                await finished(api, placed.json()["id"])
            connection = await asyncpg.connect(url.replace("+asyncpg", ""))
            await eventually(
                lambda: connection.fetchval(f"SELECT count(*) FROM ({WAITING}) w"), lambda n: n == 0
            )
            await connection.close()
        yield str(make_url(url).database)


@pytest.fixture
async def journeyed(postgres: str, journeys: str) -> AsyncIterator[str]:
    """A copy of that system's database, as its owner."""
    async with new_database(postgres, template=journeys) as copied:
        yield copied


async def order_called(connection: "asyncpg.Connection[Any]", reference: str) -> uuid.UUID:
    """Id of the order with this reference."""
    found = await connection.fetchval('SELECT id FROM "order".orders WHERE reference = $1', reference)
    assert isinstance(found, uuid.UUID)
    return found
