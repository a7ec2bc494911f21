"""Dead letters: moves the messages that a service could not decode out of the broker."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aio_pika.abc import AbstractIncomingMessage as IncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity

from events.errors import BrokerUnavailable
from events.rabbitmq.link import OPERATION_SECONDS, errors_as, opened
from events.rabbitmq.topology import Names

BATCH: Final = 50
"""Most messages passed to `keep` at a time."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of a dead-letter queue."""

    body: bytes
    type: str
    """The type in its headers, or "unknown"."""
    reason: str
    """Why it was dead-lettered: a sentence."""


async def collect(
    url: str, service: str, keep: Callable[[Sequence[DeadLetter]], Awaitable[None]], *, prefix: str = ""
) -> int:
    """Moves the messages of a service's dead-letter queue into `keep`, and returns their number.

    A message is acknowledged after `keep` has returned; if the process dies before, it is delivered again. A
    missing queue counts as empty. Raises BrokerUnavailable, and what `keep` raises.
    """
    collected = 0
    async with opened(url, f"orderflow dead {service}") as channel:
        queue = await channel.get_queue(Names(prefix).dead(service), ensure=False)
        while True:
            messages: list[IncomingMessage] = []
            with errors_as(BrokerUnavailable):
                async with asyncio.timeout(OPERATION_SECONDS):
                    try:
                        while len(messages) < BATCH and (message := await queue.get(fail=False)):
                            messages.append(message)
                    except ChannelNotFoundEntity:
                        return collected
            if not messages:
                return collected
            await keep([_read(message) for message in messages])
            with errors_as(BrokerUnavailable):
                await messages[-1].ack(multiple=True)
            collected += len(messages)


def _read(message: IncomingMessage) -> DeadLetter:
    headers = message.headers
    given_up = f"The broker gave it up ({headers.get('x-first-death-reason')!s})."
    return DeadLetter(message.body, str(headers.get("type", "unknown")), str(headers.get("reason", given_up)))
