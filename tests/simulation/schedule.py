"""One schedule: a small system runs with faults, then without, and then it is checked."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

import asyncpg
from uuid_utils.compat import uuid7

from chassis.service import chores_of_every_service
from chassis.settings import ServiceSettings
from events import killpoints
from events.clock import ClockWatch
from events.contracts import ShipmentError, Undeliverable, type_of
from events.envelope import encode_one
from events.maintenance import Chore
from events.participant import Participant, Runners
from events.transaction import Transaction
from events.transactions import Transactions
from events.worker import Handler, Handlers
from ops.services import SERVICES, load
from services.billing import work
from services.billing.domain import Payment, Refund
from services.billing.simulated import SimulatedProvider
from services.email import work as delivery
from services.email.cleaner import OldMailCleaner
from services.email.domain import Mail
from services.email.rendering import MailRenderer
from services.order.intake import Intake
from services.order.key_cleaner import IdempotencyKeyCleaner
from services.shipment import work as booking
from services.shipment.domain import Shipment
from services.shipment.simulated import SimulatedCarrier
from tests import factories
from tests.simulation import checks
from tests.simulation.broker import SimulatedBroker
from tests.simulation.checks import Finding
from tests.simulation.client import FREE, RICH, History, PlannedOrder, an_order, place
from tests.simulation.database import (
    SimulatedDatabase,
    SteppedTransactions,
    TimedTransactions,
    start_of_schedule,
)
from tests.simulation.endings import Ending
from tests.simulation.loop import VirtualLoop
from tests.simulation.process import Process, current, task_factory
from tests.simulation.reached import (
    collecting_errors,
    count_final_states,
    counting,
    id_of_fast_clock,
    is_expected,
)
from tests.simulation.scheduler import Incident, Scheduler
from tests.simulation.third_parties import Mailbox, SteppedCarrier, SteppedProvider, ThirdPartyCalls

MAX_DRAIN_ROUNDS: Final = 40
"""Most half minutes after the fault phase until all work is done."""
DRAIN_ROUND_SECONDS: Final = 30.5
SWEEP_SECONDS: Final = 8.0
MAX_DEATHS: Final = 6
MAILS: Final = replace(delivery.MAIL_RETRIES, deadline=10, first=1, longest=30)
"""The policy of mails, with pauses that end while the system drains."""


@dataclass(frozen=True)
class Outcome:
    """The result of a schedule."""

    seed: int
    trace: Sequence[str]
    steps: int
    findings: Sequence[Finding]
    unexpected: Sequence[str] = ()
    """Exceptions that no simulated ending explains: defects of the code. They are findings too."""
    reached: Mapping[str, int] = field(default_factory=dict)
    """How often each of `reached.STATES` was reached."""

    def __str__(self) -> str:
        """The findings, and the trace to analyse them."""
        return "\n".join(
            [
                f"seed {self.seed}: {len(self.findings)} findings",
                *(f"  {finding}" for finding in self.findings),
                f"repeat it: python -m tests.simulation --seed {self.seed}",
                *(f"{number:5} {line}" for number, line in enumerate(self.trace, start=1)),
            ]
        )


@dataclass
class _Running:
    """A running process of a service."""

    service: str
    process: Process
    root: "asyncio.Task[None]"
    intake: Intake | None = None


@dataclass
class System:
    """The system of one schedule."""

    database: SimulatedDatabase
    scheduler: Scheduler
    broker: SimulatedBroker = field(init=False)
    calls: ThirdPartyCalls = field(init=False)
    mailbox: Mailbox = field(init=False)
    history: History = field(default_factory=History)
    running: dict[str, _Running] = field(default_factory=dict)
    """The running processes by name: `billing`, and perhaps `billing.2`."""
    names: Sequence[str] = ()
    ended: list[Process] = field(default_factory=list)
    deaths: dict[str, int] = field(default_factory=dict)
    replayed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often a mail was replayed, by order and stage."""
    poison: set[UUID] = field(default_factory=set)
    killer_events: set[UUID] = field(default_factory=set)
    """Poison that kills every process that handles it."""
    killed: Counter[str] = field(default_factory=Counter)
    """The number of processes of each service that such events have killed."""
    unreadable: int = 0
    failures: list[BaseException] = field(default_factory=list)
    """The exceptions that ended processes."""

    def __post_init__(self) -> None:
        self.services = {name: load(name) for name in SERVICES}
        self.broker = SimulatedBroker(
            self.scheduler,
            {name: [type_of(event) for event in service.handlers] for name, service in self.services.items()},
        )
        self.calls = ThirdPartyCalls(self.scheduler)
        self.mailbox = Mailbox(self.calls)
        self._start = start_of_schedule()
        self._provider = SteppedProvider(SimulatedProvider(self._timed("provider")), self.calls)
        self._carrier = SteppedCarrier(SimulatedCarrier(self._timed("carrier"), "BR"), self.calls)
        self._renderer = MailRenderer("Shop <shop@example.com>")

    # Processes

    def start(self, name: str) -> None:
        """Starts a new process of the service."""
        service = name.partition(".")[0]
        process = Process(name, self._died)
        transactions = SteppedTransactions(self.database.pools[service], self.scheduler, self._start)
        participant = Participant(
            service,
            self._with_faults(self.services[service].handlers),
            transactions,
            self.broker,
            self._runners(service, transactions),
            chores=self._chores(service),
            sweep_seconds=SWEEP_SECONDS,
        )
        intake = Intake(transactions) if service == "order" else None
        root = process.run(participant.run(), name)
        root.add_done_callback(partial(self._root_ended, process))
        self.running[name] = _Running(service, process, root, intake)

    def intake(self) -> tuple[Process, Intake] | None:
        """A process that accepts orders, if one is running."""
        intakes = [(r.process, r.intake) for r in self.running.values() if r.intake]
        return self.scheduler.random.choice(intakes) if intakes else None

    def incidents(self) -> list[Incident]:
        """The incidents of processes and of the broker."""
        return [
            *self.broker.incidents(),
            Incident("a process dies", 0.02, self._may_die, self._kill_one),
            Incident("everything dies", 0.005, self._may_die, self._kill_all),
            Incident("a day passes", 0.003, lambda: True, self._let_a_day_pass),
        ]

    def start_all(self) -> None:
        """Starts every process that is not running."""
        for name in self.names:
            if name not in self.running:
                self.scheduler.record(f"{name} starts")
                self.start(name)

    def restart(self) -> Incident:
        """The incident that starts a process that has died."""
        return Incident("a process starts", 0.3, lambda: len(self.running) < len(self.names), self._start_one)

    async def stop(self) -> None:
        """Kills all processes and cancels late calls."""
        for running in list(self.running.values()):
            running.process.kill()
        for process in self.ended:
            await process.wait_until_ended()
        for task in self.calls.late:
            task.cancel()
        await asyncio.gather(*self.calls.late, return_exceptions=True)

    def _timed(self, schema: str) -> Transactions:
        return TimedTransactions(self.database.pools[schema], self.scheduler, self._start)

    def _runners(self, service: str, transactions: Transactions) -> Runners:
        match service:
            case "billing":
                return {
                    Payment: work.runner_of_payments(
                        self._provider, transactions, concurrency=8, sweep_seconds=SWEEP_SECONDS
                    ),
                    Refund: work.runner_of_refunds(
                        self._provider, transactions, concurrency=8, sweep_seconds=SWEEP_SECONDS
                    ),
                }
            case "shipment":
                return {
                    Shipment: booking.runner_of_bookings(
                        self._carrier, transactions, sweep_seconds=SWEEP_SECONDS
                    )
                }
            case "email":
                return {
                    Mail: delivery.runner_of_mails(
                        *(self._renderer, self.mailbox, transactions),
                        concurrency=8,
                        policy=MAILS,
                        sweep_seconds=SWEEP_SECONDS,
                    )
                }
            case _:
                return {}

    def _chores(self, service: str) -> list[Chore]:
        """The service's default chores, without the clock's: processes have virtual time."""
        own: dict[str, Chore] = {
            "order": IdempotencyKeyCleaner(timedelta(days=30)),
            "email": OldMailCleaner(timedelta(days=30)),
        }
        settings = ServiceSettings(database_url=self.database.url)
        of_all = [c for c in chores_of_every_service(settings) if not isinstance(c, ClockWatch)]
        return [*of_all, *([own[service]] if service in own else [])]

    def _with_faults(self, handlers: Handlers) -> Handlers:
        def with_faults(handler: Handler) -> Handler:
            async def handle(events: Sequence[Any], tx: Transaction) -> None:
                if any(event.id in self.killer_events for event in events):
                    self._die_of_poison()
                await handler(events, tx)
                self.scheduler.raise_defect()
                if self.scheduler.swallows_errors:
                    with suppress(asyncpg.PostgresError):
                        await tx.fetch("SELECT 1 / 0")

            return handle

        return {event: with_faults(handler) for event, handler in handlers.items()}

    def _die_of_poison(self) -> None:
        process = current()
        assert process
        self.killed[process.name.partition(".")[0]] += 1
        process.kill()
        raise asyncio.CancelledError

    def _may_die(self) -> bool:
        return bool(self.running) and sum(self.deaths.values()) < MAX_DEATHS

    def _kill_one(self) -> str:
        running = self.scheduler.random.choice(list(self.running.values()))
        running.process.kill()
        return f"{running.process.name} dies"

    def _kill_all(self) -> str:
        for running in list(self.running.values()):
            running.process.kill()
        return "everything dies"

    def _start_one(self) -> str:
        name = self.scheduler.random.choice([name for name in self.names if name not in self.running])
        self.start(name)
        return f"{name} starts"

    def _let_a_day_pass(self) -> str:
        self.scheduler.loop.advance(timedelta(hours=25).total_seconds())
        return "a day passes"

    def _died(self, process: Process) -> None:
        service = process.name.partition(".")[0]
        self.deaths[service] = self.deaths.get(service, 0) + 1
        self.ended.append(process)
        del self.running[process.name]
        self.broker.release(process)

    def _root_ended(self, process: Process, root: "asyncio.Task[None]") -> None:
        if not process.dead:
            error = None if root.cancelled() else root.exception()
            self.failures.append(error or AssertionError(f"{process.name} ended by itself."))


async def run(
    seed: int, database: SimulatedDatabase, loop: VirtualLoop, endings: Sequence[Ending] = ()
) -> Outcome:
    """Runs the schedule of this seed and returns its outcome."""
    with loop.real_io():
        await database.empty()
    scheduler = Scheduler(seed, loop)
    system = System(database, scheduler)
    reached: Counter[str] = Counter()
    unexpected: list[str] = []
    with _seeded(seed), collecting_errors(unexpected, reached), counting(reached), _scheduled(scheduler):
        choice = scheduler.random
        system.names = [
            *SERVICES,
            *(f"{service}.2" for service in SERVICES if choice.random() < 0.2),
        ]
        scheduler.plan_faults(system.incidents(), system.names, endings)
        scheduler.add_incident(system.restart())
        system.start_all()
        clients = [
            asyncio.create_task(place(planned, system.history, scheduler, system.intake))
            for planned in _planned_orders(choice)
        ]
        _poison(system, choice)
        findings: list[Finding] = []
        await scheduler.run_fault_phase()
        system.start_all()
        if not await _drain(system, clients):
            findings.append(Finding("I22", "The backlog does not drain after the fault phase."))
        await system.stop()
        for client in clients:
            client.cancel()
        ends = await asyncio.gather(*clients, return_exceptions=True)
        system.failures += [end for end in ends if isinstance(end, Exception)]
    with loop.real_io():
        findings += [Finding("I22", f"A process ended by itself: {error!r}") for error in system.failures]
        findings += await checks.findings(system)
        await count_final_states(reached, database, scheduler.trace)
    reached["given up work replayed"] += system.replayed.total()
    unexpected += [repr(error) for error in system.failures if not is_expected(error)]
    if unexpected:
        findings.append(Finding("I22", f"Unexpected exceptions: {unexpected}."))
    trace = [str(line) for line in scheduler.trace]
    return Outcome(seed, trace, scheduler.steps, findings, unexpected, reached)


async def _drain(system: System, clients: "Sequence[asyncio.Task[None]]") -> bool:
    """Lets time pass without faults; returns whether the system became idle."""
    for _ in range(MAX_DRAIN_ROUNDS):
        await system.scheduler.run_until_idle()
        system.start_all()  # those that a poison event has killed
        await system.scheduler.run_until_idle()
        with system.scheduler.loop.real_io():
            system.replayed.update(replayed := await checks.replay_mails(system.database))
            if (
                all(client.done() for client in clients)
                and system.broker.is_idle
                and not replayed
                and not await checks.waiting(system.database)
            ):
                return True
        system.scheduler.advance(DRAIN_ROUND_SECONDS)
    return False


def _planned_orders(choice: random.Random) -> list[PlannedOrder]:
    """A few orders: some are declined, some can't be shipped, some cost nothing, some are placed twice."""
    kinds: list[tuple[int, Mapping[str, Any]]] = [
        (2, {}),
        (2, RICH),
        (2, {"country": "AQ"}),
        (1, {"country": "AQ", **RICH}),
        (1, {"payment_method": "pm_card_chargeDeclined"}),
        (1, {"payment_method": "pm_nobody_knows"}),
        (1, FREE),
        (1, {"country": "AQ", **FREE}),
    ]
    orders: list[PlannedOrder] = []
    for letter in "ABCD"[: choice.randint(2, 4)]:
        [(_, fields)] = choice.choices(kinds, [weight for weight, _ in kinds])
        order = an_order(letter, **fields)
        orders.append(PlannedOrder(order, f"key-{letter}" if choice.random() < 0.8 else None))
    keyed = [order for order in orders if order.key]
    if keyed and choice.random() < 0.4:
        orders.append(choice.choice(keyed))
    if keyed and choice.random() < 0.3:
        orders.append(PlannedOrder(an_order("Z", quantity=7), choice.choice(keyed).key))
    return orders


def _poison(system: System, choice: random.Random) -> None:
    """Queues poison: an unknown type, an unknown order, an event that kills its process, and bytes."""
    if choice.random() < 0.3:
        event_id = id_of_fast_clock(uuid7(), weeks=choice.choice((0, 5)))
        body = b'[{"specversion":"1.0","id":"%s","type":"ORDER_EATEN"}]' % str(event_id).encode()
        system.broker.put(choice.choice(SERVICES), "ORDER_EATEN", body)
        system.poison.add(event_id)
    if choice.random() < 0.3:
        event = factories.one_of_each()[type_of(ShipmentError)]
        assert isinstance(event.data, Undeliverable)
        system.broker.put("billing", type_of(ShipmentError), b"[" + encode_one(event) + b"]")
        system.poison.add(event.id)
    if choice.random() < 0.1:
        event = factories.one_of_each()[type_of(ShipmentError)]
        system.broker.put("billing", type_of(ShipmentError), b"[" + encode_one(event) + b"]")
        system.poison.add(event.id)
        system.killer_events.add(event.id)
    if choice.random() < 0.3:
        system.broker.put(choice.choice(SERVICES), "?", b"nothing")
        system.unreadable += 1


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds the random module, which the system uses."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


@contextmanager
def _scheduled(scheduler: Scheduler) -> Iterator[None]:
    loop = scheduler.loop
    loop.set_task_factory(task_factory)
    killpoints.arm(scheduler.reached)
    try:
        yield
    finally:
        killpoints.arm(None)
        loop.set_task_factory(None)
