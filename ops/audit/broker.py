"""What the broker's queues tell: that they are there, that their services take from them, and what waits."""

from collections.abc import Iterator, Mapping
from typing import Final

from events.errors import BrokerUnavailable
from events.rabbitmq import QueueState, queues
from ops.audit.delivery import ARRIVES
from ops.audit.report import Breach
from ops.errors import CommandFailed
from ops.services import SERVICES

PROMISES: Final = {"I13": ARRIVES, "I22": "Every service takes what arrives in its queue."}
"""What the queues have to do with."""


class QueuesUnknown(CommandFailed):
    """The broker does not tell what waits."""


async def look(url: str) -> Mapping[str, QueueState | None]:
    """The state of every service's queue; None for one that is missing. Raises QueuesUnknown."""
    try:
        return await queues(url, SERVICES)
    except BrokerUnavailable as error:
        raise QueuesUnknown(f"{QueuesUnknown.__doc__} ({error})") from error


def breaches(states: Mapping[str, QueueState | None]) -> Iterator[Breach]:
    """A breach for each service whose queue is missing, or has nobody who takes from it."""
    for service, state in states.items():
        if state is None:
            yield Breach("I13", f"There is no queue for {service}.")
        elif not state.consumers:
            yield Breach("I22", f"Nobody takes what arrives for {service}.")


def notes(states: Mapping[str, QueueState | None], judged: "tuple[str, ...]") -> Iterator[str]:
    """What waits in the queues; `judged` are the services of which everything must have arrived."""
    for service, state in states.items():
        if state and state.waiting:
            yield f"{state.waiting} messages wait in the queue of {service}" + (
                "." if service in judged else ": what has not arrived there was not judged."
            )
    for service, state in states.items():
        if state and state.dead:
            yield f"{state.dead} messages that can't be read wait in the dead-letter queue of {service}."
