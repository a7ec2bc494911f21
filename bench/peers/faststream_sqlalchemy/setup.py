"""Creates the tables and the broker's topology."""

import os

import asyncpg
from faststream.rabbit import RabbitBroker

from bench.peers import SCHEMA, business
from bench.peers.faststream_sqlalchemy.messaging import BROKER, EXCHANGES, QUEUES


async def setup() -> None:
    """Creates both, in an empty database and virtual host."""
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    await connection.execute(SCHEMA.read_text(encoding="utf-8"))
    await connection.close()
    async with RabbitBroker(**BROKER) as broker:
        for service, types in business.LISTENERS.items():
            queue = await broker.declare_queue(QUEUES[service])
            for type_ in types:
                await queue.bind(await broker.declare_exchange(EXCHANGES[type_]))
