"""The order service: accepts orders over HTTP, and records the events of each."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import uvicorn
from asyncpg import Connection
from fastapi import FastAPI, Request, Response

from bench.peers import business
from bench.peers.aio_pika_asyncpg.service import Service
from bench.peers.business import Event, NewOrder, Order, OrderCreated, OrderDocument, Placed


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with Service.running("order", follow) as app.state.service:
        yield


app: Final = FastAPI(title="Orders", lifespan=_lifespan)


@app.post("/orders", status_code=201)
async def place_order(new: NewOrder, request: Request, response: Response) -> OrderDocument:
    """Accepts an order."""
    service: Service = request.app.state.service
    order = Order.placed(new)
    event = OrderCreated(subject=order.id, data=Placed(order=order))
    async with service.transaction() as tx:
        await tx.connection.execute(
            "INSERT INTO orders (id, created_at, reference, currency, total, status, snapshot)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7)",
            order.id,
            order.created_at,
            order.reference,
            order.currency,
            order.total,
            event.type,
            order.model_dump_json(),
        )
        await _write_entry(tx.connection, event)
        await tx.announce(event)
    response.headers["Location"] = f"/orders/{order.id}"
    return OrderDocument.of(event)


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Says that the process runs."""
    return {"status": "ok"}


async def follow(event: Event, service: Service) -> None:
    """Records an event. The status is the furthest event, in whatever order they arrive."""
    async with service.once(event) as tx:
        await _write_entry(tx.connection, event)
        await tx.connection.execute(
            "UPDATE orders SET status = $2 WHERE id = $1 AND status = ANY($3)",
            event.subject,
            event.type,
            business.before(event.type),
        )


async def _write_entry(connection: Connection, event: Event) -> None:
    await connection.execute(
        "INSERT INTO timeline (order_id, event_id, type, time) VALUES ($1, $2, $3, $4)",
        event.subject,
        event.id,
        event.type,
        event.time,
    )


def run() -> None:
    """Serves until SIGTERM."""
    signal.signal(
        signal.SIGTERM, signal.SIG_IGN
    )  # uvicorn handles SIGTERM itself, and raises it again when it has stopped
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )
