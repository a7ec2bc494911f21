"""The floor: the cost of PostgreSQL, FastAPI and RabbitMQ alone. An order that uses them can't cost less."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aio_pika
import asyncpg

from bench import load, meters
from bench.servers import Servers, Workspace, free_port

ORDERS: Final = 4000
BATCH: Final = 100
CONNECTIONS: Final = 128
SERVICES: Final = ("order", "invoice", "billing", "shipment", "email", "provider", "carrier")
LISTENERS: Final = {"order": 3, "invoice": 1, "billing": 1, "shipment": 1, "email": 4}
"""How many of an order's four events each service consumes."""


@dataclass(frozen=True)
class Floor:
    """Milliseconds of one core per order, of server and client together."""

    postgresql: float
    """Inserting Orderflow's rows, in batches of 100 orders with a statement per table."""
    fastapi: float
    """Parsing the order with pydantic and answering with it."""
    rabbitmq: float
    """Publishing Orderflow's messages with confirms and consuming them from as many queues."""

    @property
    def total(self) -> float:
        """The sum of the three."""
        return self.postgresql + self.fastapi + self.rabbitmq


async def floor(workspace: Workspace, servers: Servers, events_per_message: float) -> Floor:
    """Measures the floor with the rows and events that Orderflow has left in the workspace."""
    return Floor(
        postgresql=await _postgresql(workspace, servers),
        fastapi=await _fastapi(),
        rabbitmq=await _rabbitmq(workspace, servers, events_per_message),
    )


def _own_cpu() -> float:
    times = os.times()
    return times.user + times.system


# PostgreSQL: reads the rows that Orderflow has written, and inserts them into copies of its tables.


async def _postgresql(workspace: Workspace, servers: Servers) -> float:
    connection = await asyncpg.connect(workspace.database_url)
    try:
        copies = [await _copy(connection, schema, table) for schema, table in await _tables(connection)]
        orders: int = min(ORDERS, await connection.fetchval('SELECT count(*) FROM "order".orders'))
        await connection.execute("CHECKPOINT")
        cpu = servers.postgres().cpu + _own_cpu()
        for begin in range(0, orders, BATCH):
            for insert, columns, per_order in copies:
                first, last = int(begin * per_order), int((begin + BATCH) * per_order)
                if first < last:
                    async with connection.transaction():
                        await connection.execute(insert, *(column[first:last] for column in columns))
        return 1000 * (servers.postgres().cpu + _own_cpu() - cpu) / orders
    finally:
        await connection.close()


async def _tables(connection: "asyncpg.Connection[Any]") -> list[tuple[str, str]]:
    found = await connection.fetch(
        """
        SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = ANY($1::text[]) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
            AND c.relname <> 'alembic_version'
        ORDER BY 1, 2""",
        SERVICES,
    )
    return [(record["nspname"], record["relname"]) for record in found]


async def _copy(
    connection: "asyncpg.Connection[Any]", schema: str, table: str
) -> tuple[str, list[list[Any]], float]:
    """Copies the table's definition; returns an INSERT for it, the rows by column, and rows per order."""
    name, copy = f'"{schema}".{table}', f'floor."{schema}_{table}"'
    await connection.execute("CREATE SCHEMA IF NOT EXISTS floor")
    await connection.execute(f"CREATE TABLE {copy} (LIKE {name} INCLUDING DEFAULTS INCLUDING INDEXES)")
    orders = await connection.fetchval('SELECT count(*) FROM "order".orders')
    rows = await connection.fetchval(f"SELECT count(*) FROM {name}")
    fields = await connection.fetch(
        """
        SELECT attname, format_type(atttypid, NULL) AS type FROM pg_attribute
        WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum""",
        name,
    )
    # Arrays are passed as text, because unnest would flatten them.
    selected = ", ".join(
        f"{f['attname']}::text" if f["type"].endswith("[]") else f["attname"] for f in fields
    )
    per_order = rows / orders
    found = await connection.fetch(f"SELECT {selected} FROM {name} LIMIT {int(per_order * ORDERS) + 1}")
    arrays = ", ".join(
        f"${n}::{'text' if f['type'].endswith('[]') else f['type']}[]" for n, f in enumerate(fields, start=1)
    )
    aliases = ", ".join(f"c{n}" for n in range(len(fields)))
    values = ", ".join(
        f"c{n}::{f['type']}" if f["type"].endswith("[]") else f"c{n}" for n, f in enumerate(fields)
    )
    names = ", ".join(f["attname"] for f in fields)
    insert = f"INSERT INTO {copy} ({names}) SELECT {values} FROM unnest({arrays}) AS row ({aliases})"
    return insert, [list(column) for column in zip(*found, strict=True)], per_order


# FastAPI


async def _fastapi() -> float:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.floor", str(port), cwd=Path(__file__).resolve().parents[1]
    )
    try:
        while not await load.answers_healthy(port):
            await asyncio.sleep(0.1)
        await load.closed_loop(port, CONNECTIONS, 500)
        before = meters.of_process(process.pid).cpu
        await load.closed_loop(port, CONNECTIONS, ORDERS)
        return 1000 * (meters.of_process(process.pid).cpu - before) / ORDERS
    finally:
        process.terminate()
        await process.wait()


def _serve_alone(port: int) -> None:
    """Serves a FastAPI application written as its documentation teaches. Runs in the measured process."""
    import uvicorn  # noqa: PLC0415  # only the measured process needs it
    from fastapi import FastAPI  # noqa: PLC0415
    from pydantic import BaseModel  # noqa: PLC0415

    class Customer(BaseModel):
        name: str
        email: str
        locale: str | None = None

    class Address(BaseModel):
        line1: str
        city: str
        postal_code: str
        country: str

    class Item(BaseModel):
        sku: str
        name: str
        quantity: int
        unit_price: str
        tax_rate: str

    class Order(BaseModel):
        reference: str
        customer: Customer
        shipping_address: Address
        currency: str
        items: list[Item]
        payment_method: str

    app = FastAPI()

    @app.post("/orders", status_code=201)
    async def place(order: Order) -> Order:
        return order

    @app.get("/healthz")
    async def healthz() -> str:
        return "ok"

    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])


# RabbitMQ


def _messages(event: bytes, events: int, per_message: float) -> Iterator[bytes]:
    """Makes messages that repeat one event, with about as many events each as Orderflow's."""
    size = max(1, round(per_message))
    for begin in range(0, events, size):
        yield b"[" + b",".join(event for _ in range(min(size, events - begin))) + b"]"


async def _rabbitmq(workspace: Workspace, servers: Servers, events_per_message: float) -> float:
    connection = await asyncpg.connect(workspace.database_url)
    try:
        body = await connection.fetchval('SELECT body FROM "billing".outbox LIMIT 1')
    finally:
        await connection.close()
    event = json.dumps(json.loads(body)[0], separators=(",", ":"), ensure_ascii=False).encode()
    expected = dict.fromkeys(LISTENERS, 0)
    publishing, consuming = (
        await aio_pika.connect(workspace.broker_url),
        await aio_pika.connect(workspace.broker_url),
    )
    async with publishing, consuming:
        channel = await publishing.channel()
        reading = await consuming.channel()
        await reading.set_qos(prefetch_count=64)
        received = dict.fromkeys(LISTENERS, 0)
        arrived = asyncio.Event()
        exchanges = []
        for number in range(4):
            exchange = await channel.declare_exchange(f"floor.{number}", "fanout", durable=True)
            exchanges.append(exchange)
        for service, heard in LISTENERS.items():
            queue = await reading.declare_queue(
                f"floor.{service}", durable=True, arguments={"x-queue-type": "quorum"}
            )
            for exchange in exchanges[-heard:] if service != "invoice" else exchanges[:1]:
                await queue.bind(exchange)

            async def take(message: aio_pika.abc.AbstractIncomingMessage, service: str = service) -> None:
                await message.ack()
                received[service] += 1
                arrived.set()

            await queue.consume(take)
        cpu = servers.rabbitmq().cpu + _own_cpu()
        for exchange in exchanges:
            waiting = []
            for message in _messages(event, ORDERS, events_per_message):
                published = aio_pika.Message(message, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                waiting.append(asyncio.ensure_future(exchange.publish(published, "", mandatory=True)))
                if len(waiting) == 16:
                    await asyncio.gather(*waiting)
                    waiting.clear()
            await asyncio.gather(*waiting)
        sent = sum(1 for _ in _messages(event, ORDERS, events_per_message))
        expected = {service: heard * sent for service, heard in LISTENERS.items()}
        while received != expected:
            arrived.clear()
            await asyncio.wait_for(arrived.wait(), 30)
        return 1000 * (servers.rabbitmq().cpu + _own_cpu() - cpu) / ORDERS


if __name__ == "__main__":
    _serve_alone(int(sys.argv[1]))
