"""A process that can't work says so while its database takes no writes, and when it ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg
import httpx
import pytest
from sqlalchemy.engine import make_url

from chassis import health, process
from chassis.health import Readiness
from chassis.service import open_service
from events.contracts import type_of
from events.memory import MemoryBus
from events.transactions import Transactions
from services.order.main import SERVICE
from tests.faults.proxy import Proxy, proxy_to
from tests.handovers import RecordedHandover
from tests.order_service import a_new_order
from tests.waiting import eventually


@dataclass(frozen=True)
class Process:
    """The order service as its process runs it, on a database that the test can take away."""

    http: httpx.AsyncClient
    transactions: Transactions
    proxy: Proxy
    stop: asyncio.Event
    running: "asyncio.Task[None]"


@pytest.fixture
async def url(service_url: Callable[[str], Awaitable[str]]) -> str:
    return await service_url("order")


@asynccontextmanager
async def order_process(url: str) -> AsyncIterator[Process]:
    """Runs until `stop`."""
    bus = MemoryBus({"order": [type_of(event) for event in SERVICE.handlers]})
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(proxy_to(url))
        settings = SERVICE.settings(database_url=proxy.through(url))
        running = await stack.enter_async_context(open_service(SERVICE, settings, bus))
        listener = process.listen("127.0.0.1", 0)
        stop = asyncio.Event()
        task = asyncio.create_task(process.run([running], listener, stop))
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=base_url, trust_env=False, timeout=30) as http:
            assert (await http.get("/healthz")).status_code == 200
            yield Process(http, running.transactions, proxy, stop, task)
            stop.set()
            await task


@asynccontextmanager
async def owner_of(fresh_database: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    plain = make_url(fresh_database).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(plain)
    try:
        yield connection
    finally:
        await connection.close()


async def test_requests_interrupted_by_the_end_of_the_process_get_a_problem_document(
    url: str, fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "DRAIN_SECONDS", 0.2)
    async with order_process(url) as order, owner_of(fresh_database) as owner:
        placed = await order.http.post("/orders", json=a_new_order())
        async with owner.transaction():
            await owner.execute('LOCK TABLE "order".orders')
            asked = [
                asyncio.create_task(order.http.get(placed.headers["location"])),
                asyncio.create_task(order.http.post("/orders", json=a_new_order())),
            ]
            waiting = (
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '\"order\".orders'::regclass"
            )
            await eventually(lambda: owner.fetchval(waiting), (2).__eq__)
            order.stop.set()
            for each in await asyncio.gather(*asked):
                assert each.status_code == 503, each.text
                assert each.headers["content-type"] == "application/problem+json"
                assert each.headers["retry-after"] == "1"
                assert each.json()["type"] == "urn:orderflow:problem:temporarily_unavailable"


async def test_a_process_whose_database_takes_no_writes_is_not_ready(
    url: str, fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
    async with order_process(url) as order, owner_of(fresh_database) as owner:
        assert (await order.http.get("/readyz")).json() == {"status": "ok"}
        database = make_url(fresh_database).database
        await owner.execute(f'ALTER DATABASE "{database}" SET default_transaction_read_only TO on')
        order.proxy.cut()  # new sessions have the setting
        answer = await order.http.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "database unavailable"})
        await owner.execute("SET default_transaction_read_only TO off")
        await owner.execute(f'ALTER DATABASE "{database}" RESET default_transaction_read_only')
        order.proxy.cut()
        assert (await order.http.get("/readyz")).status_code == 200


async def test_a_database_that_never_commits_is_not_ready(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PROBE_SECONDS", 0.3)
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
    async with order_process(url) as order:
        order.proxy.silence(also_new=True)
        assert (await order.http.get("/readyz")).status_code == 503
        order.proxy.reset_silent()


async def test_frequent_readiness_checks_probe_the_database_only_now_and_then(
    transactions: Transactions, handover: RecordedHandover, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "FRESH_SECONDS", 3600.0)
    readiness = Readiness(transactions)
    assert set(await asyncio.gather(*(readiness.obstacle() for _ in range(100)))) == {None}
    assert len(handover.transactions) == 1
