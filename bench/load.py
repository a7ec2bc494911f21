"""The load: orders over HTTP on a given number of connections, with little CPU of its own."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, cast

import httptools

_ITEMS: Final = [
    {"sku": "MUG-01", "name": "Mug, blue glaze", "quantity": 2, "unit_price": "19.90", "tax_rate": "0.17"},
    {"sku": "TEA-07", "name": "Green tea, 250 g", "quantity": 1, "unit_price": "8.45", "tax_rate": "0.07"},
    {"sku": "BOX-12", "name": "Gift box, large", "quantity": 3, "unit_price": "4.99", "tax_rate": "0.17"},
]
_ATTEMPTS: Final = 3
"""Connections on which an order is tried. After a keep-alive timeout the second one works."""
ITEMS_PER_ORDER: Final = len(_ITEMS)


def order(number: int) -> dict[str, Any]:
    """Makes an order of three items. Orders differ in their reference and customer only."""
    return {
        "reference": f"BENCH-{number}",
        "customer": {"name": "Ana Souza", "email": f"ana{number}@example.com", "locale": "pt-BR"},
        "shipping_address": {
            "line1": "Rua Augusta 1",
            "city": "São Paulo",
            "postal_code": "01304-001",
            "country": "BR",
        },
        "currency": "BRL",
        "items": _ITEMS,
        "payment_method": "pm_card_visa",
    }


def requests() -> Iterator[bytes]:
    """Generates requests `POST /orders` without end, each with a new order."""
    for number in itertools.count(1):
        body = json.dumps(order(number), ensure_ascii=False).encode()
        head = (
            "POST /orders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        yield head.encode() + body


class Refused(Exception):
    """An order was not accepted, or the connection was lost before the answer."""


class NeverTaken(Refused):
    """The connection was closed before the peer can have read the request."""


@dataclass
class Answers:
    """Times and counts of the requests that were answered."""

    began: float = field(default_factory=time.time)
    """When the first request was sent, by the wall clock."""
    seconds: list[float] = field(default_factory=list)
    """The time of each answer, including a replaced connection."""
    replaced: int = 0
    """The number of connections that the peer closed between two requests."""


class _Connection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._answering = False
        self._lost = False
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class is no subclass of it

    def data_received(self, data: bytes) -> None:
        self._answering = True
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Passes the status on when the parser has read the whole answer."""
        status = self._parser.get_status_code()
        self._parser = httptools.HttpResponseParser(self)
        if self._answer and not self._answer.done():
            self._answer.set_result(status)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._answer and not self._answer.done():
            unread = isinstance(exc, ConnectionResetError) and not self._answering
            lost = NeverTaken if unread else Refused
            self._answer.set_exception(lost(f"The connection was lost before an answer: {exc or 'closed'}."))

    async def ask(self, request: bytes) -> int:
        """Returns the answer's status. Raises NeverTaken if the request may be sent again, Refused if not.

        A POST is not idempotent and may be sent again only if the peer can't have acted on it (RFC 9110,
        9.2.2): if the connection was closed before the request was written, or was reset without a byte of an
        answer. The kernel resets a connection whose process closes it without reading the request, as after a
        keep-alive timeout. A process that dies after reading the request closes the connection normally, so
        whether it accepted the order is unknown.
        """
        assert self._transport
        if self._lost or self._transport.is_closing():
            raise NeverTaken("The connection was closed while idle.")
        self._answer, self._answering = asyncio.get_running_loop().create_future(), False
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Closes the connection."""
        if self._transport:
            self._transport.close()


async def closed_loop(
    port: int, connections: int, orders: int, placed: Callable[[int], None] = lambda _: None
) -> Answers:
    """Places the orders; each connection sends its next order after the answer to its last. Raises Refused.

    Calls `placed` with the number of answered orders, about every hundred orders.
    """
    answers, waiting = Answers(), itertools.islice(requests(), orders)

    async def send_in_turn() -> None:
        connection = await _connect(port)
        try:
            for request in waiting:
                connection = await _place(port, connection, request, answers)
                if len(answers.seconds) % 100 == 0:
                    placed(len(answers.seconds))
        finally:
            connection.close()

    async with _raising_refused() as group:
        for _ in range(connections):
            group.create_task(send_in_turn())
    return answers


async def open_loop(port: int, per_second: float, orders: int) -> Answers:
    """Places orders at a steady rate, without waiting for answers. Raises Refused."""
    answers = Answers()
    idle: list[_Connection] = []
    loop = asyncio.get_running_loop()

    async def place(request: bytes) -> None:
        connection = idle.pop() if idle else await _connect(port)
        idle.append(await _place(port, connection, request, answers))

    start = loop.time()
    try:
        async with _raising_refused() as group:
            for number, request in enumerate(itertools.islice(requests(), orders)):
                await asyncio.sleep(start + number / per_second - loop.time())
                group.create_task(place(request))
    finally:
        for connection in idle:
            connection.close()
    return answers


@asynccontextmanager
async def _raising_refused() -> AsyncIterator[asyncio.TaskGroup]:
    """Opens a task group that raises the first Refused itself, not in an exception group."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as failed:
        refused, others = failed.split(Refused)
        if others or not refused:
            raise
        raise refused.exceptions[0] from None


async def answers_healthy(port: int) -> bool:
    """Returns whether `/healthz` answers 200."""
    with suppress(Refused):
        connection = await _connect(port)
        try:
            return await connection.ask(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") == 200
        finally:
            connection.close()
    return False


async def _connect(port: int) -> _Connection:
    try:
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", port)
    except OSError as failed:
        raise Refused(f"No connection: {failed}.") from failed
    return connection


async def _place(port: int, connection: _Connection, request: bytes, answers: Answers) -> _Connection:
    """Places an order, on a new connection if this one was closed. Returns the connection that it used."""
    sent, status = time.perf_counter(), 0
    for attempt in range(_ATTEMPTS):
        try:
            status = await connection.ask(request)
            break
        except NeverTaken:
            if attempt == _ATTEMPTS - 1:
                raise
            answers.replaced += 1
            connection = await _connect(port)
    answers.seconds.append(time.perf_counter() - sent)
    if status != 201:
        raise Refused(f"An order was answered with {status}.")
    return connection
