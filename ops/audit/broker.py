"""The broker's part of the audit: every service has a queue, takes messages from it, and has no backlog."""

from collections.abc import Iterator, Mapping
from typing import Final

from events.errors import BrokerUnavailable
from events.rabbitmq import QueueState, queues
from ops.audit.delivery import ARRIVES
from ops.audit.report import Breach
from ops.errors import CommandFailed
from ops.services import SERVICES

PROMISES: Final = {"I13": ARRIVES, "I22": "Every service takes the messages that arrive in its queue."}
"""The promises that can't be checked without the queues' states."""


class QueuesUnknown(CommandFailed):
    """The broker does not answer, so the state of its queues is unknown."""


async def queue_states(url: str) -> Mapping[str, QueueState | None]:
    """The state of every service's queue; None for one that is missing. Raises QueuesUnknown."""
    try:
        return await queues(url, SERVICES)
    except BrokerUnavailable as error:
        raise QueuesUnknown(f"{QueuesUnknown.__doc__} ({error})") from error


def breaches(states: Mapping[str, QueueState | None]) -> Iterator[Breach]:
    """A breach for each service whose queue is missing or has no consumer."""
    for service, state in states.items():
        if state is None:
            yield Breach("I13", f"{service} has no queue: run 'orderflow migrate'.")
        elif not state.consumers:
            yield Breach("I22", f"The queue of {service} has no consumer: is {service} running?")


def notes(states: Mapping[str, QueueState | None], checked: "tuple[str, ...]") -> Iterator[str]:
    """Sentences about messages in the queues; `checked` are the services whose arrivals were checked."""
    for service, state in states.items():
        if state and state.waiting:
            yield f"{state.waiting} messages wait in the queue of {service}" + (
                "." if service in checked else ", so arrivals there were not checked."
            )
    for service, state in states.items():
        if state and state.dead:
            yield f"{state.dead} messages of {service} are dead letters: run 'orderflow dead list'."
