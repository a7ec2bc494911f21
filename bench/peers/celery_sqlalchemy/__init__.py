"""FastAPI and Celery on RabbitMQ, SQLAlchemy's ORM on psycopg 3.

An event is a task for every service that listens, in that service's quorum queue. A worker for each queue
runs tasks in threads, with a session each, and acknowledges late. Publishing comes after the commit, and is
confirmed. There is no outbox: a process that dies between the two leaves the order where it is. The order
service is uvicorn, and beside it the worker of its queue.

It follows these pages:

- Celery, "Using RabbitMQ" (quorum queues):
  https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/rabbitmq.html
- Celery, "Routing Tasks" (a queue for each service): https://docs.celeryq.dev/en/stable/userguide/routing.html
- Celery, "Tasks" (pydantic arguments, no results, late acknowledgement):
  https://docs.celeryq.dev/en/stable/userguide/tasks.html
- Celery, "Optimizing" (connection pool, prefetch limits):
  https://docs.celeryq.dev/en/stable/userguide/optimizing.html
- SQLAlchemy, "Session Basics" (database.py): https://docs.sqlalchemy.org/en/20/orm/session_basics.html
- FastAPI, "Dependencies with yield" (a session for each request):
  https://fastapi.tiangolo.com/tutorial/dependencies/dependencies-with-yield/
"""

from typing import Final

TUNING: Final = {
    "worker pool": "threads",
    "concurrency": 8,  # tasks that a worker runs at once
    "prefetch multiplier": 4,  # so 32 tasks wait in a worker or run
    "pool": 10,  # connections to PostgreSQL and to RabbitMQ, at most, of a worker or the web server
    "web threads": 40,  # requests at once: the default of FastAPI for functions that are not async
    "event loop": "uvloop (web)",
    "HTTP parser": "httptools",
}
