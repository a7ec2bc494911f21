"""A participant: everything that one service runs to consume and publish events."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import chain
from typing import Any

from events import delays, outbox, parked
from events.bus import Bus, Message
from events.contracts import OrderDelayed
from events.delays import DelayFactory, WaitReason
from events.journey import STAGES
from events.maintenance import Chore, Maintenance
from events.parked import ParkedEvent
from events.runner import Runner
from events.transaction import Transaction
from events.transactions import Transactions
from events.worker import Handlers, Worker

Runners = dict[type, Runner[Any, Any]]
"""The runner for each type of intent."""


class Participant:
    """Worker, relay, runners, retries and chores of one service, on one database and one bus.

    It connects the handover of `transactions` to the relay and the runners, so they begin right after a
    commit.
    """

    def __init__(
        self,
        service: str,
        handlers: Handlers,
        transactions: Transactions,
        bus: Bus,
        runners: Runners | None = None,
        *,
        chores: Sequence[Chore] = (),
        sweep_seconds: float = 5.0,
    ) -> None:
        self.service = service
        self.runners = runners or {}
        self.relay: Runner[Message, None] = Runner(
            f"{service} relay",
            outbox.LEASES,
            transactions,
            bus.publish,
            _mark_published,
            policy=outbox.PUBLISH,
            sweep_seconds=sweep_seconds,
        )
        self.worker = Worker(service, handlers, transactions, bus, self.runners.values())
        self.retries: Runner[ParkedEvent, None] = Runner(
            f"{service} retries",
            parked.LEASES,
            transactions,
            self.worker.retry,
            _nothing_to_settle,
            policy=parked.RETRY,
            delayed=_delays_of_parked_events(service),
            concurrency=1,
            memory=100,
            sweep_seconds=sweep_seconds,
        )
        self._groups: Sequence[Collection[Runner[Any, Any]]] = (
            (self.retries,),
            self.runners.values(),
            (self.relay,),
        )
        """In draining order: each group leaves work to the next."""
        self.maintenance = Maintenance(service, transactions, chores)
        transactions.handover.connect(service, self.relay, self.runners)

    async def run(self) -> None:
        """Works until `stop`, then drains the worker, the runners and last the relay.

        An exception means a defect: the process should be restarted.
        """
        async with self.working(), asyncio.TaskGroup() as parts:
            maintaining = parts.create_task(self.maintenance.run(), name=f"{self.service} maintenance")
            await parts.create_task(self.worker.run(), name=f"{self.service} worker")
            maintaining.cancel()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Runs everything but the worker and the chores until the context ends; then it drains and stops.

        Rows that are not begun by then are released, for any process to claim at once.
        """
        async with asyncio.TaskGroup() as parts:
            groups = [
                [(runner, parts.create_task(runner.run(), name=runner.name)) for runner in group]
                for group in self._groups
            ]
            yield
            for group in groups:
                for runner, _ in group:
                    runner.stop()
                for _, task in group:
                    await task

    async def wait_until_idle(self) -> None:
        """Returns when no runner has work that can be done now."""
        for runner in chain.from_iterable(self._groups):
            await runner.wait_until_idle()

    def sweep_now(self) -> None:
        """Sweeps all tables now instead of at the next scheduled time."""
        for runner in chain.from_iterable(self._groups):
            runner.sweep_now()

    @property
    def in_outage(self) -> Sequence[str]:
        """Names of the runners that are in an outage."""
        return [runner.name for runner in chain.from_iterable(self._groups) if runner.in_outage]

    def stop(self) -> None:
        """Asks `run` to end."""
        self.worker.stop()


async def _mark_published(tx: Transaction, published: Sequence[tuple[Message, None]]) -> None:
    await outbox.mark_published(tx, [message for message, _ in published])


def _delays_of_parked_events(service: str) -> DelayFactory[ParkedEvent] | None:
    """None for a service that no stage belongs to: its parked events delay no order."""
    if all(stage.service != service for stage in STAGES):
        return None

    def to_delay(waiting: ParkedEvent, why: WaitReason, since: datetime) -> OrderDelayed | None:
        return delays.for_parked_event(waiting.body, service, why, since)

    return to_delay


async def _nothing_to_settle(tx: Transaction, retried: Sequence[tuple[ParkedEvent, None]]) -> None:
    """The worker commits each retry itself."""
