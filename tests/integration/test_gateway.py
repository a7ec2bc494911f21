"""The gateway in front of replicas of the order service that die, start and are replaced."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url

from tests.gateway import REPLICAS, gateway, replica
from tests.order_service import a_new_order
from tests.ports import free_port
from tests.servers import REQUIRE_DOCKER, NoContainer
from tests.waiting import eventually

ServiceUrl = Callable[[str], Awaitable[str]]
FIRST, SECOND = REPLICAS


@asynccontextmanager
async def through_gateway(order_port: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the gateway; the test is left out where Docker does not answer."""
    try:
        async with gateway(order_port) as client:
            yield client
    except NoContainer as error:
        if REQUIRE_DOCKER:
            raise
        pytest.skip(str(error))


async def place(client: httpx.AsyncClient, reference: str, key: str | None) -> int:
    """The status of the answer to one order."""
    headers = {"Idempotency-Key": key} if key else {}
    answer = await client.post("/orders", json=a_new_order(reference=reference), headers=headers)
    return answer.status_code


@asynccontextmanager
async def dying_replica(address: str, port: int) -> AsyncIterator[list[bytes]]:
    """Reads requests and then closes their connections, as a killed process does. Yields the requests."""
    taken: list[bytes] = []

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(await reader.readuntil(b"\r\n\r\n"))
        writer.transport.abort()

    async with await asyncio.start_server(die, address, port):
        yield taken


async def test_an_order_with_a_key_goes_to_the_next_replica_when_one_dies_over_it(
    service_url: ServiceUrl, tmp_path: Path
) -> None:
    port = free_port()
    async with (
        dying_replica(FIRST, port) as taken,
        replica(SECOND, port, await service_url("order"), tmp_path) as healthy,
        through_gateway(port) as client,
    ):
        await healthy.serves()
        keyed = [await place(client, f"keyed-{n}", f"key-{n}") for n in range(12)]
        lost_and_placed_again = len(taken)
        taken.clear()
        unkeyed = Counter([await place(client, f"unkeyed-{n}", None) for n in range(12)])
    assert lost_and_placed_again
    assert keyed == [201] * 12
    assert unkeyed == Counter({502: len(taken), 201: 12 - len(taken)})  # none was sent a second time
    assert taken


async def test_a_replica_that_waits_for_its_database_gets_no_requests(
    service_url: ServiceUrl, tmp_path: Path
) -> None:
    port = free_port()
    url = await service_url("order")
    nowhere = make_url(url).set(database="no_such_database").render_as_string(hide_password=False)
    async with (
        replica(FIRST, port, url, tmp_path) as ready,
        replica(SECOND, port, nowhere, tmp_path) as waiting,
        through_gateway(port) as client,
    ):
        await ready.serves()
        await waiting.has_said("waiting for the database")
        assert [await place(client, f"order-{n}", None) for n in range(12)] == [201] * 12


async def test_orders_with_a_key_are_all_accepted_while_one_replica_after_the_other_is_replaced(
    service_url: ServiceUrl, tmp_path: Path
) -> None:
    port = free_port()
    url = await service_url("order")
    async with (
        replica(FIRST, port, url, tmp_path) as first,
        replica(SECOND, port, url, tmp_path) as second,
        through_gateway(port) as client,
    ):
        await asyncio.gather(first.serves(), second.serves())
        replaced = asyncio.Event()
        statuses: Counter[int] = Counter()
        placed = [0] * 4
        """How many orders each client has placed."""

        async def orders(number: int) -> None:
            while not replaced.is_set():
                name = f"{number}-{placed[number]}"
                statuses[await place(client, name, name)] += 1
                placed[number] += 1

        async def all_answered() -> None:
            """Returns when every client has placed one more order, so none from before is under way."""
            before = list(placed)

            async def now() -> list[int]:
                return placed

            await eventually(now, lambda found: all(n > b for n, b in zip(found, before, strict=True)))

        async with asyncio.TaskGroup() as group:
            for number in range(len(placed)):
                group.create_task(orders(number))
            for each, how, status in ((first, signal.SIGTERM, 0), (second, signal.SIGKILL, -9)):
                assert await each.end(how) == status
                await each.start()
                await each.serves()
                await all_answered()
            replaced.set()
    assert statuses.keys() == {201}
