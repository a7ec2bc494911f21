"""The RabbitMQ transport. It keeps the promises of `events.bus.Bus` for services in processes of their own.

RabbitMQ 4.x is supported; 3.10 and later work as best effort. A process has one connection for publishing and
one for each subscription, and reopens a lost one without limit. Messages can be duplicated and reordered, but
a confirmed message never disappears.

This package uses aio-pika's plain connections, not its robust ones: it decides itself which delivery tags are
valid, when a publish times out, and in which order the topology is declared after a connection was lost.
"""

from events.rabbitmq.bus import RabbitMQBus
from events.rabbitmq.dead_letters import DeadLetter, collect
from events.rabbitmq.inspection import QueueState, purge, queues
from events.rabbitmq.topology import Names, TopologyConflict, declare

__all__ = [
    "DeadLetter",
    "Names",
    "QueueState",
    "RabbitMQBus",
    "TopologyConflict",
    "collect",
    "declare",
    "purge",
    "queues",
]
