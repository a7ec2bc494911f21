"""The order service: accepts orders over HTTP, and records the events of each."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated, Final

import uvicorn
from fastapi import Depends, FastAPI, Response
from sqlalchemy import update
from sqlalchemy.orm import Session

from bench.peers import business, models
from bench.peers.business import Envelope, NewOrder, OrderCreated, OrderDocument, Placed
from bench.peers.celery_sqlalchemy.app import app, publish, worker_options
from bench.peers.celery_sqlalchemy.database import sessions

web: Final = FastAPI(title="Orders")


def get_session() -> Iterator[Session]:
    """Opens a session. The caller commits."""
    with sessions() as session:
        yield session


@web.post("/orders", status_code=201)
def place_order(
    new: NewOrder, response: Response, session: Annotated[Session, Depends(get_session)]
) -> OrderDocument:
    """Accepts an order."""
    order = business.Order.placed(new)
    event = OrderCreated(subject=order.id, data=Placed(order=order))
    session.add(
        models.Order(
            id=order.id,
            created_at=order.created_at,
            reference=order.reference,
            currency=order.currency,
            total=order.total,
            status=event.type,
            snapshot=order.model_dump(mode="json"),
        )
    )
    session.add(_entry(event))
    session.commit()
    publish(event)
    response.headers["Location"] = f"/orders/{order.id}"
    return OrderDocument.of(event)


@web.get("/healthz")
def healthz() -> dict[str, str]:
    """Says that the process runs."""
    return {"status": "ok"}


@app.task(name="order.follow", pydantic=True)
def follow(event: Envelope) -> None:
    """Records an event. The status is the furthest event, in whatever order they arrive."""
    with sessions.begin() as session:
        session.add(_entry(event))
        session.execute(
            update(models.Order)
            .where(models.Order.id == event.subject, models.Order.status.in_(business.before(event.type)))
            .values(status=event.type)
            .execution_options(synchronize_session=False)  # the session holds no order
        )


def _entry(event: Envelope) -> models.TimelineEntry:
    return models.TimelineEntry(order_id=event.subject, event_id=event.id, type=event.type, time=event.time)


def run() -> None:
    """Runs the web server and the worker until SIGTERM."""
    signal.signal(
        signal.SIGTERM, signal.SIG_IGN
    )  # uvicorn handles SIGTERM itself, and raises it again when it has stopped
    command = [sys.executable, "-m", "celery", f"--app={__name__}:app", *worker_options("order")]
    with subprocess.Popen(command) as worker:
        uvicorn.run(
            web,
            host="127.0.0.1",
            port=int(os.environ["PORT"]),
            loop="uvloop",
            http="httptools",
            log_level="warning",
            access_log=False,
        )
        worker.terminate()
