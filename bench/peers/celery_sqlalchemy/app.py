"""The Celery application: a quorum queue per service, and the tasks of each event."""

import os
from typing import Final

from celery import Celery
from kombu import Exchange, Queue

from bench.peers import business
from bench.peers.celery_sqlalchemy import TUNING

TASKS: Final = {
    "ORDER_CREATED": ("invoice.issue_invoice", "email.write_mail"),
    "INVOICE_CREATED": ("billing.take_payment", "order.follow", "email.write_mail"),
    "PAYMENT_CONFIRMED": ("shipment.book_parcel", "order.follow", "email.write_mail"),
    "SHIPPED": ("order.follow", "email.write_mail"),
}
_TOPIC: Final = Exchange("tasks", type="topic", durable=True)  # delayed retries need a topic exchange

app: Final = Celery("orders", broker=os.environ["BROKER_URL"])
app.conf.update(
    task_queues=[
        Queue(service, _TOPIC, routing_key=service, queue_arguments={"x-queue-type": "quorum"})
        for service in business.LISTENERS
    ],
    task_routes={
        f"{service}.*": {"queue": service, "routing_key": service} for service in business.LISTENERS
    },
    task_default_queue_type="quorum",
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=TUNING["prefetch multiplier"],
    broker_transport_options={"confirm_publish": True},
    broker_pool_limit=TUNING["pool"],
)


def publish(event: business.Event) -> None:
    """Sends every listening service its task."""
    document = event.model_dump(mode="json")
    for task in TASKS[event.type]:
        app.send_task(task, (document,))


def worker_options(service: str) -> list[str]:
    """The options of the worker that runs a service's tasks."""
    return [
        "worker",
        f"--queues={service}",
        f"--hostname={service}@%h",
        f"--pool={TUNING['worker pool']}",
        f"--concurrency={TUNING['concurrency']}",
        "--without-gossip",
        "--without-mingle",
        "--loglevel=WARNING",
    ]


def work(service: str) -> None:
    """Runs a service's tasks until SIGTERM."""
    app.worker_main(worker_options(service))
