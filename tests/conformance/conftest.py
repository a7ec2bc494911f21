"""The transports that every test of this suite runs on."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from chassis.database import role_of
from tests.aws_server import Cloud
from tests.conformance.system import BINDINGS, HANDLED, System
from tests.conformance.transports import AWS, Memory, RabbitMQ, Transport
from tests.conftest import create_tables, new_database, rabbitmq_of
from tests.faults.proxy import proxy_to

TRANSPORTS = ("memory", "aws", "rabbitmq-4", "rabbitmq-local")
VISIBILITY_SECONDS = 3


@pytest.fixture(params=TRANSPORTS)
async def transport(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Transport]:
    """A transport with the system's topology."""
    if request.param == "memory":
        memory = Memory()
        await memory.declare(BINDINGS)
        yield memory
        return
    if request.param == "aws":
        server = request.getfixturevalue("aws")
        async with proxy_to(server) as proxy:
            endpoint = proxy.through(server)
            monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
            cloud = Cloud(endpoint, f"test-{uuid.uuid4().hex[:12]}-", visibility_seconds=VISIBILITY_SECONDS)
            aws = AWS(cloud, proxy)
            await aws.declare(BINDINGS)
            yield aws
            await asyncio.to_thread(cloud.remove)
        return
    broker = rabbitmq_of(request)
    prefix = f"test-{uuid.uuid4().hex[:12]}."
    async with proxy_to(broker.url) as proxy:
        rabbitmq = RabbitMQ(broker, proxy, prefix)
        await rabbitmq.declare(BINDINGS)
        try:
            yield rabbitmq
        finally:
            await broker.remove(prefix, *BINDINGS)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def template(postgres: str) -> AsyncIterator[str]:
    """Name of a template database with a schema, a role and tables for each service."""
    async with new_database(postgres) as url:
        name = str(make_url(url).database)
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            for service in BINDINGS:
                role = role_of(name, service)
                await connection.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD '{service}'"))
                await connection.execute(text(f'ALTER ROLE {role} SET search_path TO "{service}"'))
                await connection.execute(text(f'CREATE SCHEMA "{service}" AUTHORIZATION {role}'))
        await engine.dispose()
        for service in BINDINGS:
            as_role = make_url(url).set(username=role_of(name, service), password=service)
            await create_tables(as_role.render_as_string(hide_password=False))
            engine = create_async_engine(as_role, isolation_level="AUTOCOMMIT")
            async with engine.connect() as connection:
                await connection.execute(text(HANDLED))
            await engine.dispose()
        yield name


@pytest.fixture
async def system(transport: Transport, postgres: str, template: str) -> AsyncIterator[System]:
    """The system on the transport, with fresh tables. No service is started."""
    async with new_database(postgres, template=template) as url:
        urls = {
            service: make_url(url)
            .set(username=role_of(template, service), password=service)
            .render_as_string(hide_password=False)
            for service in BINDINGS
        }
        system = System(transport, urls)
        await system.open()
        yield system
        await system.close()
