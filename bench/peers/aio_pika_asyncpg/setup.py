"""Creates the tables and the broker's topology."""

import os

import aio_pika
import asyncpg
from aio_pika import ExchangeType

from bench.peers import SCHEMA, business


async def setup() -> None:
    """Creates both, in an empty database and virtual host."""
    database = await asyncpg.connect(os.environ["DATABASE_URL"])
    await database.execute(SCHEMA.read_text(encoding="utf-8"))
    await database.close()
    async with await aio_pika.connect(os.environ["BROKER_URL"]) as broker:
        channel = await broker.channel()
        for type_ in business.TYPES:
            await channel.declare_exchange(f"events.{type_}", ExchangeType.FANOUT, durable=True)
        for service, types in business.LISTENERS.items():
            dead = f"{service}.dead"
            await channel.declare_queue(dead, durable=True, arguments={"x-queue-type": "quorum"})
            arguments = {
                "x-queue-type": "quorum",
                "x-delivery-limit": 100,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": dead,
            }
            queue = await channel.declare_queue(service, durable=True, arguments=arguments)
            for type_ in types:
                await queue.bind(f"events.{type_}")
