"""The RabbitMQ transport. It keeps the promises of `events.bus.Bus` for services in processes of their own.

RabbitMQ 4.x is promised, 3.10 and later work as best effort. Each process has one connection for publishing
and one for each subscription; whichever is lost is made again, for as long as it takes. Duplicates and any
order are possible, a confirmed message that disappears is not.

aio-pika's plain connections are used, not its robust ones: a connection that restores itself would decide
what is decided here, such as which delivery tags are still good, when a publish has waited long enough, and
what is declared before what.
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
