"""The benchmark's counting proxy counts the round trips that a real client waits for."""

from pathlib import Path

import asyncpg

from bench.round_trips import Cost, counting_proxy
from bench.servers import Workspace
from ops.postgres import embedded_postgres


async def test_what_a_client_does_is_counted_by_its_user(tmp_path: Path) -> None:
    async with embedded_postgres(tmp_path) as url:
        direct = Workspace(url.replace("+asyncpg", ""), "amqp://nowhere")
        async with counting_proxy(direct) as (through, proxy):
            connection = await asyncpg.connect(through.database_url)
            await connection.execute("CREATE TABLE notes (id integer, text text)")
            insert = await connection.prepare("INSERT INTO notes VALUES ($1, $2)")
            before = proxy.snapshot()
            async with connection.transaction():
                await insert.fetch(1, "a" * 100_000)
                await insert.fetch(2, "b")
            lone = proxy.snapshot()
            assert len(await connection.fetchval("SELECT text FROM notes WHERE id = 1")) == 100_000
            await connection.close()
    [user] = before
    assert lone[user] - before[user] == Cost(round_trips=4, statements=2, transactions=1)
