"""The handover: passes the messages and intents of a committed transaction to the runners of this process.

So their rows need not be read from the database. A row that is not taken waits in its table for a sweep.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

from events.contracts import AnyEvent, type_of
from events.leases import LEASE_SECONDS
from events.progress import ProgressLog, Step
from events.transaction import Transaction


class TakesRows(Protocol):
    """The part of a runner that the handover uses."""

    @property
    def takes_new(self) -> bool:
        """Whether it takes new rows into memory right after their commit."""
        ...

    def offer(self, rows: Sequence[Any], claimed_at: float) -> None:
        """Takes the rows, or leaves all of them to their table. `claimed_at` is the loop's time."""
        ...


class Handover:
    """Passes messages to the relay and each intent to the runner of its type, without waiting for them.

    Transactions have one from the start; `Participant` connects it, because runners need transactions first.
    Until then, and in a process without a participant, rows wait in their tables.
    """

    def __init__(self) -> None:
        self._relay: TakesRows | None = None
        self._runners: Mapping[type, TakesRows] = {}
        self._progress: ProgressLog | None = None

    def connect(self, service: str, relay: TakesRows, runners: Mapping[type, TakesRows]) -> None:
        """Connects the relay, and the runners by the type of their intent."""
        self._relay = relay
        self._runners = runners
        self._progress = ProgressLog(service)

    def message_lease(self) -> float:
        """Seconds for which new outbox rows are born claimed: 0 if the relay does not take them."""
        return LEASE_SECONDS if self._relay and self._relay.takes_new else 0.0

    def hand_over(self, tx: Transaction) -> None:
        """Passes on the messages and intents of a committed transaction, and logs its progress."""
        if self._relay is None or self._progress is None:
            return
        if tx.messages:
            self._relay.offer(tx.messages, tx.started)
        by_type: dict[type, list[Any]] = {}
        for intent in tx.intents:
            by_type.setdefault(type(intent), []).append(intent)
        for intent_type, intents in by_type.items():
            self._runners[intent_type].offer(intents, tx.started)
        self._progress.note(chain(map(_step, tx.events), tx.steps))


def _step(event: AnyEvent) -> Step:
    seconds = (event.time - event.data.order.created_at).total_seconds()
    return Step(event.subject, type_of(type(event)), seconds)
