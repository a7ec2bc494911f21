"""Servers for tests: a real PostgreSQL and a real RabbitMQ, in containers if Docker answers."""

import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import hypothesis
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from chassis import database
from events import migrations, partitions
from events.transactions import Transactions
from tests import servers
from tests.handovers import RecordedHandover
from tests.servers import REQUIRE_DOCKER, Broker, NoContainer

LEFT_OUT = pytest.StashKey[dict[str, str]]()
"""Servers that this run goes without, each with the reason."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = {}
    hypothesis.settings.register_profile("without time limits", deadline=None)  # machines are shared
    hypothesis.settings.load_profile("without time limits")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects the tests on a local RabbitMQ if none answers."""
    elsewhere = [item for item in items if "rabbitmq-local" in item.name]
    if elsewhere and not servers.local_rabbitmq():
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if item not in elsewhere]
        config.stash[LEFT_OUT]["RabbitMQ on localhost:5672"] = "none answers"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With REQUIRE_DOCKER=1 a skipped test has failed."""
    report = yield
    if REQUIRE_DOCKER and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"left out, and REQUIRE_DOCKER=1 leaves nothing out: {call.excinfo}"
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A pytest-xdist worker reports to its controller which servers it went without."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash[LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The controller collects the report when a worker has ended."""
    node.config.stash[LEFT_OUT].update(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash[LEFT_OUT]
    if left_out:
        terminalreporter.section("left out")
        for what, why in left_out.items():
            terminalreporter.line(f"{what}: {why}")


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of this run's PostgreSQL server, as its owner: in a container, or else the embedded one.

    TEST_POSTGRES_URL names another, for quick runs by hand.
    """
    if (url := os.environ.get("TEST_POSTGRES_URL")) and not REQUIRE_DOCKER:
        yield url
        return
    try:
        with servers.postgres_in_container() as url:
            yield url
            return
    except NoContainer as error:
        if REQUIRE_DOCKER:
            raise
        why = f"{error}. The embedded PostgreSQL was used."
        pytestconfig.stash[LEFT_OUT]["PostgreSQL in a container"] = why
    with servers.postgres_embedded(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture
def rabbitmq(rabbitmq_server: Broker) -> Broker:
    """This run's RabbitMQ 4, in a container. Without Docker, tests that need it are skipped."""
    rabbitmq_server.make_sound()
    return rabbitmq_server


@pytest.fixture(scope="session")
def rabbitmq_server(pytestconfig: pytest.Config) -> Iterator[Broker]:
    """The server, started once for the session."""
    try:
        with servers.rabbitmq_in_container() as broker:
            yield broker
            return
    except NoContainer as error:
        if REQUIRE_DOCKER:
            raise
        why = str(error)
    pytestconfig.stash[LEFT_OUT]["RabbitMQ 4 in a container"] = why
    pytest.skip("no RabbitMQ 4 in a container")


@pytest.fixture(scope="session")
def aws() -> Iterator[str]:
    """Address of this run's moto server. Its credentials are in the environment."""

    from tests.aws_server import CREDENTIALS, aws_server  # noqa: PLC0415  # moto is slow to load

    with pytest.MonkeyPatch.context() as patch, aws_server() as address:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield address


def rabbitmq_of(request: pytest.FixtureRequest) -> Broker:
    """The broker that a fixture's parameter names: `rabbitmq-4` in a container, or `rabbitmq-local`."""
    if request.param == "rabbitmq-local":
        return Broker("amqp://guest:guest@127.0.0.1:5672/")
    broker: Broker = request.getfixturevalue("rabbitmq")
    return broker


@asynccontextmanager
async def new_database(postgres: str, *, template: str = "template1") -> AsyncIterator[str]:
    """URL of a database that is dropped at the end, as its owner."""
    name = f"orderflow_{uuid.uuid4().hex[:12]}"
    server = create_async_engine(postgres, isolation_level="AUTOCOMMIT")
    async with server.connect() as connection:
        await connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
    try:
        yield server.url.set(database=name).render_as_string(hide_password=False)
    finally:
        async with server.connect() as connection:
            await connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
            await _drop_roles(connection, name)
        await server.dispose()


@pytest.fixture
async def fresh_database(postgres: str) -> AsyncIterator[str]:
    """URL of an empty database of the test's own, as its owner."""
    async with new_database(postgres) as url:
        yield url


@pytest.fixture
def handover() -> RecordedHandover:
    """What hands over what `transactions` leave behind."""
    return RecordedHandover()


@pytest.fixture
async def transactions(fresh_database: str, handover: RecordedHandover) -> AsyncIterator[Transactions]:
    """Transactions on a database with the tables of `events` and nothing else."""
    await create_tables(fresh_database)
    async with database.connect(fresh_database, pool=8, application="test") as pool:
        yield Transactions(pool, handover)


async def create_tables(url: str) -> None:
    """The tables of `events`."""

    def create(connection: Connection) -> None:
        migrations.create_tables_8(connection.exec_driver_sql)

    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(create)
    await engine.dispose()
    async with database.connect(url, pool=1, application="test") as pool:
        await partitions.renew(Transactions(pool))


@pytest.fixture
async def service_url(fresh_database: str) -> Callable[[str], Awaitable[str]]:
    """Migrates one service's schema in the test's database and gives the URL of the service's own role."""

    from ops import migrate  # noqa: PLC0415  # it loads every service, and most tests need none

    async def migrated(service: str) -> str:
        await migrate.migrate_service(fresh_database, service, password=service)
        return migrate.url_for(fresh_database, service, password=service)

    return migrated


async def _drop_roles(connection: AsyncConnection, database_name: str) -> None:
    """Drops the roles that a migration made: they belong to the server, so they outlive the database."""
    roles = await connection.execute(
        text("SELECT rolname FROM pg_roles WHERE starts_with(rolname, :prefix)"),
        {"prefix": f"{database_name}_"},
    )
    for (role,) in roles:
        await connection.execute(text(f'DROP ROLE "{role}"'))
