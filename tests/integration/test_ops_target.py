"""Which system a command is about: the one that was named, or the one in the state folder, running or not."""

from pathlib import Path

import asyncpg
import pytest

from ops.target import NoSystem, Target, open_target
from tests.embedded import running


async def orders_at(found: Target) -> int:
    connection = await asyncpg.connect(found.database_url.replace("+asyncpg", ""))
    try:
        return int(await connection.fetchval('SELECT count(*) FROM "order".orders'))
    finally:
        await connection.close()


async def test_the_system_in_the_folder_is_found_while_it_runs_and_after(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with running(state), open_target("", "", state) as found:
        assert found.broker_url is None
        assert await orders_at(found) == 0
    async with open_target("", "", state) as found:
        assert await orders_at(found) == 0


async def test_a_folder_without_a_system_is_reported_and_unchanged(tmp_path: Path) -> None:
    with pytest.raises(NoSystem, match="DATABASE_URL"):
        async with open_target("", "", tmp_path / "nothing"):
            pass
    assert not (tmp_path / "nothing").exists()


async def test_a_database_url_takes_precedence_over_the_folder(tmp_path: Path) -> None:
    async with open_target("postgresql://me@host/orderflow", "amqp://broker/", tmp_path) as found:
        assert found == Target("postgresql+asyncpg://me@host/orderflow", "amqp://broker/")
