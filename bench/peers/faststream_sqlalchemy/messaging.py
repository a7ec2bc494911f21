"""The broker: a durable fanout exchange per event type, a quorum queue per service."""

import logging
import os
from typing import Final

from faststream.rabbit import Channel, ExchangeType, QueueType, RabbitExchange, RabbitQueue

from bench.peers import business
from bench.peers.faststream_sqlalchemy import TUNING

EXCHANGES: Final = {
    type_: RabbitExchange(f"events.{type_}", type=ExchangeType.FANOUT, durable=True)
    for type_ in business.TYPES
}
QUEUES: Final = {
    service: RabbitQueue(service, queue_type=QueueType.QUORUM, durable=True) for service in business.LISTENERS
}
BROKER: Final = {
    "url": os.environ["BROKER_URL"],
    "default_channel": Channel(prefetch_count=TUNING["prefetch"], publisher_confirms=True),
    "log_level": logging.DEBUG,  # the level of its two lines per message
}
"""Arguments of every broker object."""
