"""FastAPI, aio-pika and plain asyncpg, with Orderflow's guarantees: nothing is lost, nothing is done twice.

Every message is one transaction: its inbox row, what the service does, and the outbox row of the event that
follows; it is acknowledged after the commit. A relay in the process publishes outbox rows right after their
commit, waits for the confirms and marks them; a sweep publishes what a crash left behind. The provider is
called before the transaction, with an idempotency key.

It follows these pages:

- aio-pika, "Publisher Confirms", third strategy (confirms handled asynchronously; outbox.py):
  mosquito/aio-pika, docs/source/rabbitmq-tutorial/7-publisher-confirms.md
- aio-pika, "Quick start" (robust connections): mosquito/aio-pika, docs/source/quick-start.md
- asyncpg, "Usage", "Connection Pools" (service.py): MagicStack/asyncpg, docs/usage.rst
- "Transactional outbox": https://microservices.io/patterns/data/transactional-outbox.html
- "Idempotent Consumer":
  https://microservices.io/patterns/communication-style/idempotent-consumer.html

It is faster than they teach in three places: committed rows go to the relay at once, without polling; the
relay marks what it has published with one statement; the pool skips asyncpg's reset query.
"""

from typing import Final

TUNING: Final = {
    "pool": 5,  # connections to PostgreSQL, for each of the five processes
    "prefetch": 20,  # messages that a service handles at once: those beyond the pool wait for a connection
    "relay batch": 100,  # messages published at once, and marked with one statement
    "event loop": "uvloop",
    "HTTP parser": "httptools",
}
