"""A peer with FastAPI, FastStream's RabbitMQ broker, and SQLAlchemy's asyncio ORM on asyncpg.

Each request and message has a session, which its handler commits. FastStream's `@publisher` then publishes
the handler's return value, and the broker confirms it before the message is acknowledged. Messages are
pydantic models. There is no outbox: a process that dies between commit and publish leaves the order where it
is.

It follows these pages:

- FastStream, "FastAPI Plugin" (order.py):
  ag2ai/faststream, docs/docs/en/getting-started/integrations/fastapi/index.md
- FastStream, "Publishing" (`@publisher`, `persist`): ag2ai/faststream, docs/docs/en/rabbit/publishing.md
- FastStream, "Concurrency and Prefetch": ag2ai/faststream, docs/docs/en/rabbit/prefetch.md. The locked
  release has no `max_workers` for RabbitMQ: it handles as many messages at once as the prefetch count allows.
- SQLAlchemy, "Asynchronous I/O" (database.py): https://docs.sqlalchemy.org/en/20/orm/extensions/asyncio.html
- FastAPI, "Dependencies with yield" (a session for each request):
  https://fastapi.tiangolo.com/tutorial/dependencies/dependencies-with-yield/
"""

from typing import Final

TUNING: Final = {
    "pool": 5,  # connections to PostgreSQL, for each of the five processes
    "prefetch": 10,  # messages that a service handles concurrently
    "event loop": "uvloop",
    "HTTP parser": "httptools",
}
