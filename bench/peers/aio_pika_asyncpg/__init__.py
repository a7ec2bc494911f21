"""A peer with FastAPI, aio-pika and plain asyncpg, and Orderflow's guarantees: nothing is lost or done twice.

Each message is handled in one transaction, which writes its inbox row, the service's own rows and the outbox
row of the next event. The message is acknowledged after the commit. A relay in the process publishes outbox
rows right after their commit, waits for the confirms and marks the rows. A sweep publishes rows that a crash
left unpublished. The provider is called before the transaction, with an idempotency key.

It follows these pages:

- aio-pika, "Publisher Confirms", third strategy (confirms handled asynchronously; outbox.py):
  mosquito/aio-pika, docs/source/rabbitmq-tutorial/7-publisher-confirms.md
- aio-pika, "Quick start" (robust connections): mosquito/aio-pika, docs/source/quick-start.md
- asyncpg, "Usage", "Connection Pools" (service.py): MagicStack/asyncpg, docs/usage.rst
- "Transactional outbox": https://microservices.io/patterns/data/transactional-outbox.html
- "Idempotent Consumer":
  https://microservices.io/patterns/communication-style/idempotent-consumer.html

It is faster than these pages teach in three places: committed rows go to the relay at once, without polling;
the relay marks published rows with one statement; the pool skips asyncpg's reset query.
"""

from typing import Final

TUNING: Final = {
    "pool": 5,  # connections to PostgreSQL, for each of the five processes
    "prefetch": 20,  # messages that a service handles at a time; those beyond the pool wait for a connection
    "relay batch": 100,  # messages that are published together and marked with one statement
    "event loop": "uvloop",
    "HTTP parser": "httptools",
}
