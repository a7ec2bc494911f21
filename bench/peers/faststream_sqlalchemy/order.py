"""The order service: accepts orders over HTTP, and records the events of each."""

import os
import signal
from typing import Annotated, Final

import uvicorn
from fastapi import Depends, FastAPI, Response
from faststream.rabbit.fastapi import RabbitRouter
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from bench.peers import business, models
from bench.peers.business import AnyEvent, NewOrder, OrderCreated, OrderDocument, Placed
from bench.peers.faststream_sqlalchemy.database import get_session
from bench.peers.faststream_sqlalchemy.messaging import BROKER, EXCHANGES, QUEUES

Session = Annotated[AsyncSession, Depends(get_session)]

router: Final = RabbitRouter(**BROKER)
order_created: Final = router.publisher(exchange=EXCHANGES["ORDER_CREATED"], persist=True)


@router.post("/orders", status_code=201)
async def place_order(new: NewOrder, response: Response, session: Session) -> OrderDocument:
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
    await session.commit()
    await order_created.publish(event)
    response.headers["Location"] = f"/orders/{order.id}"
    return OrderDocument.of(event)


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Says that the process runs."""
    return {"status": "ok"}


@router.subscriber(QUEUES["order"])
async def follow(event: AnyEvent, session: Session) -> None:
    """Records an event. The status is the furthest event, in whatever order they arrive."""
    session.add(_entry(event))
    await session.execute(
        update(models.Order)
        .where(models.Order.id == event.subject, models.Order.status.in_(business.before(event.type)))
        .values(status=event.type)
        .execution_options(synchronize_session=False)  # the session holds no order
    )
    await session.commit()


def _entry(event: business.Event) -> models.TimelineEntry:
    return models.TimelineEntry(order_id=event.subject, event_id=event.id, type=event.type, time=event.time)


app: Final = FastAPI(title="Orders")
app.include_router(router)


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
