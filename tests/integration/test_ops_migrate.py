"""`orderflow migrate` prepares database and broker for this version, or says in a sentence why it can't."""

import asyncio
import uuid
from pathlib import Path

import aiormq
import pytest
from sqlalchemy.engine import URL, make_url

from chassis import database
from chassis.settings import BrokerSettings, DatabaseSettings, read
from events.rabbitmq import declare
from ops.migrate import (
    ROLES,
    MigrationRefused,
    NotReached,
    UnusablePassword,
    declare_topology,
    migrate,
    owner_url,
    passwords_from_environment,
    url_for,
)
from ops.postgres import embedded_postgres
from tests.embedded import orderflow
from tests.servers import Broker
from tests.waiting import eventually

ANY_PASSWORD = "p@ss:w/o%r#d? &='\"\\$1+[::1]"
PASSWORDS = {role: role for role in ROLES}


async def test_it_can_be_repeated_and_brings_the_brokers_topology(
    tmp_path: Path, fresh_database: str, rabbitmq: Broker
) -> None:
    for _ in range(2):
        environment = {"DATABASE_URL": fresh_database, "BROKER_URL": rabbitmq.url}
        async with orderflow("migrate", folder=tmp_path, **environment) as process:
            assert await process.ended() == 0, process.said
    async with aiormq.connect(rabbitmq.url) as connection:
        channel = await connection.channel()
        for service in ("order", "invoice", "billing", "shipment", "email"):
            await channel.queue_declare(f"orderflow.{service}", passive=True)
            await channel.queue_declare(f"orderflow.{service}.dead", passive=True)
    await rabbitmq.remove("", "order", "invoice", "billing", "shipment", "email")


async def test_it_waits_until_the_database_is_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def log() -> str:
        return caplog.text

    caplog.set_level("INFO", "ops.migrate")
    async with embedded_postgres(tmp_path) as url:
        sockets = Path(str(make_url(url).query["host"]))
        hidden = sockets.rename(sockets.with_suffix(".hidden"))
        migrating = asyncio.create_task(migrate(url, PASSWORDS))
        await eventually(log, lambda said: "does not answer yet" in said)
        hidden.rename(sockets)
        await migrating


async def test_a_database_that_does_not_come_up_is_reported_in_a_sentence() -> None:
    with pytest.raises(NotReached, match=r"The database at DATABASE_URL did not answer within 0 s: "):
        await migrate("postgresql+asyncpg://nobody@127.0.0.1:9/orderflow", PASSWORDS, wait=0)


async def test_a_broker_that_does_not_come_up_is_reported_in_a_sentence() -> None:
    with pytest.raises(NotReached, match=r"The broker at BROKER_URL did not answer within 0 s: "):
        await declare_topology("amqp://guest:guest@127.0.0.1:9/", wait=0)


async def test_a_database_that_does_not_exist_is_reported_at_once(fresh_database: str) -> None:
    missing = make_url(fresh_database).set(database="orderflow_nowhere")
    with pytest.raises(MigrationRefused, match='database "orderflow_nowhere" does not exist'):
        await migrate(missing.render_as_string(hide_password=False), PASSWORDS)


async def test_an_empty_password_is_refused_by_its_name(fresh_database: str) -> None:
    with pytest.raises(UnusablePassword, match="INVOICE_DB_PASSWORD is empty"):
        await migrate(fresh_database, PASSWORDS | {"invoice": ""})


async def test_a_role_can_log_in_with_any_printable_password(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(fresh_database, dict.fromkeys(ROLES, ANY_PASSWORD))
    url = make_url(fresh_database)
    bare = URL.create(
        url.drivername, f"{url.database}_order", None, url.host, url.port, url.database, url.query
    ).render_as_string()
    monkeypatch.setenv("DATABASE_URL", bare)
    monkeypatch.setenv("DATABASE_PASSWORD", ANY_PASSWORD)
    for address in (
        read(DatabaseSettings).database_url,
        url_for(fresh_database, "order", ANY_PASSWORD),
        owner_url(bare),
    ):
        async with database.connect(address, pool=1, application="test") as pool:
            assert await pool.fetchval("SELECT current_user") == f"{url.database}_order"


async def test_the_broker_accepts_any_printable_password(
    rabbitmq: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = f"test-{uuid.uuid4()}"
    rabbitmq.control("add_user", user, "--", ANY_PASSWORD)
    rabbitmq.control("set_permissions", user, ".*", ".*", ".*")
    host = rabbitmq.url.rpartition("@")[2]
    monkeypatch.setenv("BROKER_URL", f"amqp://{user}@{host}")
    monkeypatch.setenv("BROKER_PASSWORD", ANY_PASSWORD)
    prefix = f"{user}."
    await declare(read(BrokerSettings).broker_url, {"order": []}, prefix=prefix)
    await rabbitmq.remove(prefix, "order")
    rabbitmq.control("delete_user", user)


async def test_an_owner_that_may_not_create_roles_is_reported(fresh_database: str) -> None:
    await migrate(fresh_database, PASSWORDS)
    weak = make_url(fresh_database)
    weak = weak.set(username=f"{weak.database}_order", password="order")
    with pytest.raises(MigrationRefused, match="permission denied"):
        await migrate(weak.render_as_string(hide_password=False), PASSWORDS)


async def test_an_option_of_the_url_that_does_not_exist_is_refused_at_once(fresh_database: str) -> None:
    with pytest.raises(MigrationRefused, match=r"DATABASE_URL can't be used: .*sslmode"):
        await migrate(f"{fresh_database}?sslmode=bogus", PASSWORDS)


async def test_without_a_database_it_says_which_setting_is_missing(tmp_path: Path) -> None:
    async with orderflow("migrate", folder=tmp_path) as process:
        assert await process.ended() != 0
    assert "DATABASE_URL" in process.said
    assert "Traceback" not in process.said


def test_passwords_are_the_services_names_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLING_DB_PASSWORD", "s3cret")
    assert passwords_from_environment() == PASSWORDS | {"billing": "s3cret"}
