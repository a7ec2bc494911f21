"""FastAPI and FastStream's RabbitMQ broker, SQLAlchemy's asyncio ORM on asyncpg.

A session for every request and message, which the handler commits; what it then returns is published by
FastStream's `@publisher` and confirmed by the broker before the message is acknowledged. Messages are
pydantic models. There is no outbox: a process that dies between commit and publish leaves the order where
it is.

As documented by FastStream ("FastAPI Plugin", "Publishing"), FastAPI ("SQL Databases") and SQLAlchemy
("Asynchronous I/O").
"""

from typing import Final

TUNING: Final = {
    "pool": 5,  # connections to PostgreSQL, for each of the five processes
    "prefetch": 10,  # messages that a service handles at once
    "event loop": "uvloop",
    "HTTP parser": "httptools",
}
