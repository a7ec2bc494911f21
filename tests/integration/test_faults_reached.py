"""Every state that a soak reports can be counted in the tables of this version."""

import asyncpg

from ops import migrate
from tests.faults.reached import IN_TABLES, counts


async def test_every_state_can_be_counted(fresh_database: str) -> None:
    await migrate.migrate(fresh_database, {role: role for role in migrate.ROLES})
    connection = await asyncpg.connect(fresh_database.replace("+asyncpg", "", 1))
    try:
        [record] = await connection.fetch(counts())
        assert dict(record.items()) == dict.fromkeys(IN_TABLES, 0)
    finally:
        await connection.close()
