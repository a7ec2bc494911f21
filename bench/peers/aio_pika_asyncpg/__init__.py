"""FastAPI, aio-pika and plain asyncpg, with Orderflow's guarantees: nothing is lost, nothing is done twice.

Every message is one transaction: its inbox row, what the service does, and the outbox row of the event that
follows; it is acknowledged after the commit. A relay in the process publishes outbox rows right after their
commit, waits for the confirms and marks them; a sweep publishes what a crash left behind. The provider is
called before the transaction, with an idempotency key.

As documented by aio-pika (robust connections, publisher confirms), asyncpg ("Connection Pools") and
microservices.io ("Transactional outbox", "Idempotent Consumer").
"""

from typing import Final

TUNING: Final = {
    "pool": 5,  # connections to PostgreSQL, for each of the five processes
    "prefetch": 20,  # messages that a service handles at once: those beyond the pool wait for a connection
    "relay batch": 100,  # messages published at once, and marked with one statement
    "event loop": "uvloop",
    "HTTP parser": "httptools",
}
