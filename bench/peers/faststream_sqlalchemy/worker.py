"""The broker of a service without HTTP, and the process around it."""

from typing import Final

import uvloop
from faststream import FastStream
from faststream.rabbit import RabbitBroker

from bench.peers.faststream_sqlalchemy.database import engine
from bench.peers.faststream_sqlalchemy.messaging import BROKER

broker: Final = RabbitBroker(**BROKER)


def run() -> None:
    """Handles messages until SIGTERM."""
    uvloop.run(FastStream(broker, after_shutdown=[engine.dispose]).run())
