"""The email service: one mail per order and stage."""

from functools import partial
from typing import Final

from bench.peers.aio_pika_asyncpg import service
from bench.peers.aio_pika_asyncpg.service import Service
from bench.peers.business import Event


async def write_mail(event: Event, service: Service) -> None:
    """Records the mail to the customer."""
    async with service.once(event) as tx:
        await tx.connection.execute(
            "INSERT INTO mails (order_id, stage, recipient, event, state) VALUES ($1, $2, $3, $4, 'sent')",
            event.subject,
            event.type,
            event.data.order.customer.email,
            event.model_dump_json(),
        )


run: Final = partial(service.run, "email", write_mail)
