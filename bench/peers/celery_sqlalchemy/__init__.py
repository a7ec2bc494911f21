"""A peer with FastAPI, Celery on RabbitMQ, and SQLAlchemy's ORM on psycopg 3.

Each event becomes a task in the quorum queue of every service that listens. Each queue has a worker that runs
tasks in threads, with a session each, and acknowledges late. Tasks are published after the commit, with
confirms. There is no outbox: a process that dies between commit and publish leaves the order where it is. The
order service runs uvicorn and its queue's worker.

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
    "concurrency": 8,  # tasks that a worker runs concurrently
    "prefetch multiplier": 4,  # so a worker holds 32 tasks, waiting or running
    "pool": 10,  # connections to PostgreSQL and to RabbitMQ, at most, of a worker or the web server
    "web threads": 40,  # concurrent requests: the default of FastAPI for functions that are not async
    "event loop": "uvloop (web)",
    "HTTP parser": "httptools",
}
