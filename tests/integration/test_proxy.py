"""The proxy cuts at the moment that it names: the server has done its part before it, or not."""

import asyncio
import os
import re
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import aiosmtplib
import asyncpg
import httpx
import pytest
import uvloop
from aio_pika import Message
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError

from events.errors import BrokerUnavailable
from events.rabbitmq.link import errors_as, opened
from tests.conftest import rabbitmq_of
from tests.faults.lanes import AT_ONCE, Pace
from tests.faults.moments import (
    CHANGE_HALF_ANSWERED,
    CHANGE_UNANSWERED,
    CHANGE_UNSENT,
    COMMIT_UNANSWERED,
    COMMIT_UNSENT,
    DELIVERY_UNACKNOWLEDGED,
    DELIVERY_UNRECEIVED,
    MAIL_UNANSWERED,
    MAIL_UNFINISHED,
    PUBLISH_UNCONFIRMED,
    PUBLISH_UNSENT,
    Moment,
)
from tests.faults.proxy import Connection, Proxy, proxy_to
from tests.integration.mail_server import mail_server
from tests.servers import Broker
from tests.waiting import eventually

# Clients that are cut off while they connect leave their sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

# PostgreSQL


Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def dsn(url: str) -> str:
    return url.replace("+asyncpg", "")


@pytest.fixture
async def table(fresh_database: str) -> AsyncIterator[Owner]:
    """The owner's connection, without the proxy, to a database with a table `notes`."""
    own = await asyncpg.connect(dsn(fresh_database))
    await own.execute("CREATE TABLE notes (note text)")
    yield own
    await own.close()


@pytest.fixture
async def line(fresh_database: str) -> AsyncIterator[Proxy]:
    async with proxy_to(fresh_database) as proxy:
        yield proxy


async def note(proxy: Proxy, url: str, text: str) -> None:
    """Commits a note in the way services do. Raises what the driver raises."""
    client = await asyncpg.connect(dsn(proxy.through(url)), timeout=10)
    try:
        await client.execute("BEGIN")
        await client.execute("INSERT INTO notes VALUES ($1)", text)
        await client.execute("COMMIT")
    finally:
        client.terminate()


LOST = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)


async def notes(own: Owner) -> list[str]:
    return [record["note"] for record in await own.fetch("SELECT note FROM notes")]


@pytest.mark.parametrize(("moment", "kept"), [(COMMIT_UNANSWERED, ["lost"]), (COMMIT_UNSENT, [])])
async def test_a_commit_is_cut_off_before_or_after_it_is_done(
    table: Owner,
    fresh_database: str,
    line: Proxy,
    moment: Moment,
    kept: list[str],
) -> None:
    with line.at(moment) as watch:
        with pytest.raises(LOST):
            await note(line, fresh_database, "lost")
        assert watch.struck.done()
    assert await notes(table) == kept
    await note(line, fresh_database, "later")
    assert await notes(table) == [*kept, "later"]


async def test_the_nth_commit_is_cut_off_and_no_other(table: Owner, fresh_database: str, line: Proxy) -> None:
    with line.at(COMMIT_UNANSWERED, nth=3) as watch:
        await note(line, fresh_database, "first")
        await note(line, fresh_database, "second")
        assert (watch.count, watch.struck.done()) == (2, False)
        with pytest.raises(LOST):
            await note(line, fresh_database, "third")
        await note(line, fresh_database, "fourth")
    assert await notes(table) == ["first", "second", "third", "fourth"]


async def test_only_the_connections_of_one_role_are_cut_off(
    table: Owner, fresh_database: str, line: Proxy
) -> None:
    with line.at(COMMIT_UNANSWERED, of="somebody else") as watch:
        await note(line, fresh_database, "mine")
        assert not watch.count
    seen: list[str] = []
    with line.at(COMMIT_UNANSWERED, lambda connection: seen.append(connection.name)):
        await note(line, fresh_database, "looked at, and let through")
    assert seen == [await table.fetchval("SELECT current_user")]


async def test_the_process_is_known_that_a_connection_belongs_to(
    table: Owner, fresh_database: str, line: Proxy
) -> None:
    """The proxy can kill it between its COMMIT and the answer."""
    program = (
        "import asyncio, asyncpg, sys\n"
        "async def main():\n"
        "    client = await asyncpg.connect(sys.argv[1])\n"
        "    for statement in ('BEGIN', \"INSERT INTO notes VALUES ('last words')\", 'COMMIT'):\n"
        "        await client.execute(statement)\n"
        "asyncio.run(main())"
    )
    killed: list[int] = []

    def kill(connection: Connection) -> None:
        pid = connection.process
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    with line.at(COMMIT_UNANSWERED, kill):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, dsn(line.through(fresh_database))
        )
        assert await process.wait() == -signal.SIGKILL
    assert killed == [process.pid]
    assert await notes(table) == ["last words"]


# RabbitMQ


@pytest.fixture(params=["rabbitmq-4", "rabbitmq-local"])
def broker(request: pytest.FixtureRequest) -> Broker:
    return rabbitmq_of(request)


@asynccontextmanager
async def queue(broker: Broker) -> AsyncIterator[str]:
    """A queue of the test's own."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    async with opened(broker.url, "owner") as channel:
        await channel.declare_queue(name)
        try:
            yield name
        finally:
            await channel.queue_delete(name)


async def bodies(broker: Broker, name: str) -> list[bytes]:
    """Takes every message out of the queue. Returns their bodies."""
    found = []
    async with opened(broker.url, "reader") as channel:
        own = await channel.get_queue(name)
        while message := await own.get(fail=False, no_ack=True):
            found.append(message.body)
    return found


async def publish(url: str, name: str, body: bytes) -> None:
    """Raises BrokerUnavailable when there is no confirm."""
    async with opened(url, "orderflow publisher") as channel:
        with errors_as(BrokerUnavailable):
            async with asyncio.timeout(10):
                await channel.default_exchange.publish(Message(body), name)


@pytest.mark.parametrize(("moment", "kept"), [(PUBLISH_UNCONFIRMED, [b"x" * 200_000]), (PUBLISH_UNSENT, [])])
async def test_a_publish_is_cut_off_before_or_after_it_is_done(
    broker: Broker, moment: Moment, kept: list[bytes]
) -> None:
    async with queue(broker) as name, proxy_to(broker.url) as proxy:
        with proxy.at(moment, of="publisher") as watch:
            with pytest.raises(BrokerUnavailable):
                await publish(proxy.through(broker.url), name, b"x" * 200_000)
            assert watch.struck.done()
        await publish(proxy.through(broker.url), name, b"later")
        assert await bodies(broker, name) == [*kept, b"later"]


@pytest.mark.parametrize("moment", [DELIVERY_UNACKNOWLEDGED, DELIVERY_UNRECEIVED])
async def test_a_delivery_that_is_cut_off_comes_again(broker: Broker, moment: Moment) -> None:
    async def acknowledge(message: AbstractIncomingMessage) -> None:
        with suppress(AMQPError, ChannelInvalidStateError, OSError):
            await message.ack()

    async with queue(broker) as name, proxy_to(broker.url) as proxy:
        await publish(broker.url, name, b"once")
        with proxy.at(moment, of="consumer") as watch, suppress(AMQPError, ChannelInvalidStateError, OSError):
            async with opened(proxy.through(broker.url), "orderflow consumer") as channel:
                own = await channel.get_queue(name)
                await own.consume(acknowledge)
                async with asyncio.timeout(30):
                    await watch.struck
        assert watch.struck.done()
        assert await eventually(lambda: bodies(broker, name), bool) == [b"once"]


# SMTP


@pytest.mark.parametrize(("moment", "taken"), [(MAIL_UNANSWERED, 1), (MAIL_UNFINISHED, 0)])
async def test_a_mail_is_cut_off_before_or_after_it_is_taken(moment: Moment, taken: int) -> None:
    content = b"Subject: hello\r\n\r\n" + b"..\r\n" * 500
    async with mail_server() as server, proxy_to(server.port) as proxy:

        async def send() -> None:
            async with aiosmtplib.SMTP(hostname="127.0.0.1", port=proxy.port, use_tls=False) as client:
                await client.sendmail("shop@example.com", ["ana@example.com"], content)

        with proxy.at(moment) as watch:
            with pytest.raises((aiosmtplib.SMTPException, OSError)):
                await send()
            assert watch.struck.done()
        assert len(server.mails) == taken
        await send()
        assert len(server.mails) == taken + 1


# HTTP


class Shop(asyncio.Protocol):
    """Takes one whole request on each connection, counts it and answers."""

    def __init__(self, requests: list[bytes]) -> None:
        self._requests = requests
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"the end"):
            self._requests.append(self._received)
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n")
            self._transport.write(b"answered")


@pytest.mark.parametrize(
    ("moment", "done"), [(CHANGE_UNANSWERED, 1), (CHANGE_HALF_ANSWERED, 1), (CHANGE_UNSENT, 0)]
)
async def test_a_request_is_cut_off_before_or_after_it_is_done(moment: Moment, done: int) -> None:
    requests: list[bytes] = []
    server = await asyncio.get_running_loop().create_server(lambda: Shop(requests), "127.0.0.1", 0)
    async with server, proxy_to(server.sockets[0].getsockname()[1]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/v1/charges"
        async with httpx.AsyncClient(trust_env=False) as client:
            with proxy.at(moment) as watch:
                with pytest.raises(httpx.TransportError):
                    await client.post(url, content=b"charge, the end")
                assert watch.struck.done()
            assert len(requests) == done
            answer = await client.post(url, content=b"charge, the end")
        assert answer.text == "answered"
        server.close()


# Everything


async def until(holds: Callable[[], bool]) -> None:
    """Returns when it holds."""

    async def probe() -> bool:
        return holds()

    await eventually(probe, bool)


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Proxy, Callable[[], Awaitable[asyncio.StreamReader]]]]:
    """A proxy before an echo server, and a function that connects and sends `hello`."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    writers = []
    async with server, proxy_to(server.sockets[0].getsockname()[1]) as proxy:

        async def hello() -> asyncio.StreamReader:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writers.append(writer)
            writer.write(b"hello")
            return reader

        yield proxy, hello
        for writer in writers:
            writer.transport.abort()
        server.close()


async def test_a_cut_connection_is_reset() -> None:
    async with echoing() as (proxy, hello):
        reader = await hello()
        assert await reader.read(5) == b"hello"
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        assert await (await hello()).read(5) == b"hello"


def test_what_fell_silent_and_was_closed_meanwhile_is_forgotten_on_the_loop_of_the_soak() -> None:
    async def closed_behind_the_black_hole() -> None:
        async with echoing() as (proxy, hello):
            await (await hello()).read(5)
            [connection] = proxy._open
            proxy.silence()
            connection._near.close()
            await until(lambda: connection._near.transport.get_extra_info("socket").fileno() < 0)
            proxy.reset_silent()

    uvloop.run(closed_behind_the_black_hole())


async def test_a_black_hole_swallows_what_is_there_and_what_comes() -> None:
    async with echoing() as (proxy, hello):
        old = await hello()
        assert await old.read(5) == b"hello"
        assert proxy.silence(also_new=True) == 1
        new = await hello()
        await until(lambda: proxy.silenced == 2)
        assert not proxy.connections
        proxy.reset_silent()
        for reader in (old, new):
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
        assert await (await hello()).read(5) == b"hello"


async def test_a_half_open_connection_is_lost_to_the_server_alone() -> None:
    async with echoing() as (proxy, hello):
        reader = await hello()
        assert await reader.read(5) == b"hello"
        assert proxy.half_open() == 1
        await until(lambda: proxy.sides == 1)
        assert not reader.at_eof()


async def test_a_refusing_proxy_takes_no_connection_until_it_accepts_again() -> None:
    async with echoing() as (proxy, hello):
        await proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await hello()
        await proxy.accept()
        assert await (await hello()).read(5) == b"hello"


async def test_slow_bytes_arrive_in_order_and_all_of_them() -> None:
    async with echoing() as (proxy, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        proxy.to_server = Pace(delay=0.05)
        proxy.to_client = Pace(bytes_per_second=10_000_000)
        sent = b"".join(number.to_bytes(4) for number in range(500_000))  # more than a lane holds
        receiving = asyncio.create_task(reader.readexactly(len(sent)))
        for start in range(0, len(sent), 50_000):
            writer.write(sent[start : start + 50_000])
            await writer.drain()
        await until(lambda: proxy.delayed > 0)
        proxy.to_server = proxy.to_client = AT_ONCE
        assert await receiving == sent
        writer.transport.abort()


async def test_bytes_sent_before_the_end_of_a_connection_arrive() -> None:
    async def say_goodbye(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"goodbye")
        writer.close()

    server = await asyncio.start_server(say_goodbye, "127.0.0.1", 0)
    async with server, proxy_to(server.sockets[0].getsockname()[1]) as proxy:
        proxy.to_client = Pace(delay=0.05)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await reader.read() == b"goodbye"
        writer.close()
        server.close()


def test_no_shipped_code_arms_a_kill_point() -> None:
    """No module outside of the tests names the arming function, its entry point or its variable."""
    root = Path(__file__).parents[2]
    shipped = [root / "docker-compose.yml", root / "Dockerfile"]
    shipped += [path for folder in ("libs", "ops", "services") for path in (root / folder).rglob("*.py")]
    arms = re.compile(r"tests\.faults\.|\barm\(|[\"']ARM[\"']")
    found = [path.name for path in shipped if arms.search(path.read_text(encoding="utf-8"))]
    assert found == ["killpoints.py"]
