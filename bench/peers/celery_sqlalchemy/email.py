"""The email service: one mail per order and stage."""

from functools import partial
from typing import Any, Final
from uuid import UUID

from bench.peers import models
from bench.peers.celery_sqlalchemy.app import app, work
from bench.peers.celery_sqlalchemy.database import sessions


@app.task(name="email.write_mail")
def write_mail(event: dict[str, Any]) -> None:
    """Records the mail to the customer."""
    with sessions.begin() as session:
        session.add(
            models.Mail(
                order_id=UUID(event["subject"]),
                stage=event["type"],
                recipient=event["data"]["order"]["customer"]["email"],
                event=event,
                state="sent",
            )
        )


run: Final = partial(work, "email")
