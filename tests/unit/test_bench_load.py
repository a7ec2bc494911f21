"""The benchmark's load: an order is sent again on a new connection only if it can't have been taken."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from bench import load
from bench.load import NeverTaken, Refused

ACCEPTED = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"
Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(connected: Connected) -> AsyncIterator[int]:
    """The port of a server that does this with each connection."""
    handled: list[asyncio.Task[None]] = []

    async def until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await connected(reader, writer)
        with suppress(ConnectionError):
            await writer.wait_closed()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handled.append(asyncio.create_task(until_closed(reader, writer)))

    async with await asyncio.start_server(begin, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*handled)


async def reference(reader: asyncio.StreamReader) -> str:
    """Of the next order that is read."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length:"))
    body = json.loads(await reader.readexactly(int(length.split(b":")[1])))
    return str(body["reference"])


async def test_a_connection_that_was_closed_while_idle_is_replaced() -> None:
    taken: list[str] = []

    async def answers_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(await reference(reader))
        writer.write(ACCEPTED)
        await writer.drain()
        writer.close()

    async with serving(answers_once) as port:
        answers = await load.open_loop(port, per_second=20, orders=5)
    assert taken == [f"BENCH-{number}" for number in range(1, 6)]
    assert (len(answers.seconds), answers.replaced) == (5, 4)


async def test_an_order_that_was_sent_and_never_read_is_sent_again() -> None:
    taken: list[str] = []

    async def closes_on_the_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # As a server does whose loop was busy until after the keep-alive timeout: the order is in its kernel.
        taken.append(await reference(reader))
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport reads
        writer.write(ACCEPTED)
        await asyncio.sleep(0.1)
        writer.close()

    async with serving(closes_on_the_second) as port:
        answers = await load.closed_loop(port, connections=1, orders=3)
    assert taken == ["BENCH-1", "BENCH-2", "BENCH-3"]
    assert (len(answers.seconds), answers.replaced) == (3, 2)


async def test_an_order_that_was_read_and_not_answered_is_not_sent_again() -> None:
    taken: list[str] = []

    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(await reference(reader))
        writer.close()

    async with serving(dies) as port:
        with pytest.raises(Refused, match="lost before an answer: closed") as refused:
            await load.closed_loop(port, connections=1, orders=3)
    assert not isinstance(refused.value, NeverTaken)
    assert taken == ["BENCH-1"]


async def test_half_an_answer_is_an_answer() -> None:
    taken: list[str] = []

    async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(await reference(reader))
        writer.write(ACCEPTED[:20])
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.transport.abort()

    async with serving(breaks_off) as port:
        with pytest.raises(Refused) as refused:
            await load.closed_loop(port, connections=1, orders=3)
    assert not isinstance(refused.value, NeverTaken)
    assert taken == ["BENCH-1"]


async def test_a_server_that_closes_every_new_connection_ends_the_run() -> None:
    connections = 0

    async def closes_at_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport reads
        await asyncio.sleep(0.1)
        writer.close()

    async with serving(closes_at_once) as port:
        with pytest.raises(NeverTaken):
            await load.closed_loop(port, connections=1, orders=1)
    assert connections == 3


async def test_where_nobody_listens_the_run_ends_with_a_sentence() -> None:
    async with serving(lambda *_: asyncio.sleep(0)) as port:
        pass
    with pytest.raises(Refused, match="No connection"):
        await load.closed_loop(port, connections=2, orders=3)
    assert not await load.answers_healthy(port)
