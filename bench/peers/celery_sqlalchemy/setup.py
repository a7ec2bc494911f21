"""Creates the tables and the broker's topology."""

import os

import psycopg

from bench.peers import SCHEMA
from bench.peers.celery_sqlalchemy.app import app


def setup() -> None:
    """Creates both, in an empty database and virtual host."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute(SCHEMA.read_text(encoding="utf-8"))
    with app.connection_for_write() as broker:
        for queue in app.amqp.queues.values():
            queue.bind(broker.default_channel).declare()
