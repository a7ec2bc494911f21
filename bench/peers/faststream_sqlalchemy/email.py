"""The email service: one mail per order and stage."""

from typing import Annotated

from faststream import Depends
from sqlalchemy.ext.asyncio import AsyncSession

from bench.peers import models
from bench.peers.business import AnyEvent
from bench.peers.faststream_sqlalchemy.database import get_session
from bench.peers.faststream_sqlalchemy.messaging import QUEUES
from bench.peers.faststream_sqlalchemy.worker import broker, run

__all__ = ["run"]


@broker.subscriber(QUEUES["email"])
async def write_mail(event: AnyEvent, session: Annotated[AsyncSession, Depends(get_session)]) -> None:
    """Records the mail to the customer."""
    session.add(
        models.Mail(
            order_id=event.subject,
            stage=event.type,
            recipient=event.data.order.customer.email,
            event=event.model_dump(mode="json"),
            state="sent",
        )
    )
    await session.commit()
