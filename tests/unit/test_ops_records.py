"""A command that can't read the records says so in a sentence, whatever the driver raises."""

import asyncio

import asyncpg
import pytest
from typer.testing import CliRunner

from ops.main import app

ENVIRONMENT = {
    "DATABASE_URL": "postgresql://orderflow@127.0.0.1:1/orderflow",
    "BROKER_URL": "",
    "STATE": "",
    "PAYMENT_PROVIDER": "simulated",
}
ERRORS = [
    OSError("connection reset"),
    TimeoutError(),
    asyncpg.AdminShutdownError("terminating connection due to administrator command"),
    asyncpg.InterfaceError("connection is closed"),
    asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("command", ["audit", "stuck"])
async def test_an_error_of_the_driver_is_told_in_a_sentence(
    command: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(asyncpg, "connect", connect)
    result = await asyncio.to_thread(CliRunner().invoke, app, [command], env=ENVIRONMENT)
    assert result.exit_code == 1
    assert "does not permit reading" in result.output
    assert "Traceback" not in result.output
