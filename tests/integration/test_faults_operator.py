"""The operator of a fault run replays what the guarantees leave to a person, and nothing else."""

import uuid
from dataclasses import dataclass
from typing import Any, cast

import asyncpg

from ops import migrate
from tests.faults.cluster import Cluster
from tests.faults.operator import replay_mails

_MAIL = """
    INSERT INTO email.mails
        (id, order_id, stage, recipient, event, state, claimed_until, attempts, unknowns, defects)
    VALUES ($1, $2, 'SHIPPED', 'ana@example.com', '\\x00', 'dead', now(), 3, $3, $4)"""


@dataclass
class Database:
    """What the operator uses of a cluster."""

    database_url: str

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.database_url.replace("+asyncpg", "", 1))
        try:
            return await connection.fetch(query, *arguments)
        finally:
            await connection.close()


async def test_mails_with_too_many_unknown_outcomes_are_replayed_and_those_with_defects_are_not(
    fresh_database: str,
) -> None:
    await migrate.migrate(fresh_database, {role: role for role in migrate.ROLES})
    system = Database(fresh_database)
    unknown, defect = uuid.uuid4(), uuid.uuid4()
    await system.fetch(_MAIL, unknown, uuid.uuid4(), 3, 0)
    await system.fetch(_MAIL, defect, uuid.uuid4(), 0, 8)
    assert await replay_mails(cast(Cluster, cast(Any, system))) == 1
    states = {row["id"]: row["state"] for row in await system.fetch("SELECT id, state FROM email.mails")}
    assert states == {unknown: "pending", defect: "dead"}
    assert await replay_mails(cast(Cluster, cast(Any, system))) == 0
