"""One schedule: a small system, a storm over it, then calm, and the question whether everything is right."""

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
from tests.simulation.client import History, Wish, an_order, place
from tests.simulation.database import (
    SimulatedDatabase,
    SteppedTransactions,
    TimedTransactions,
    start_of_schedule,
)
from tests.simulation.fates import Fate
from tests.simulation.loop import VirtualLoop
from tests.simulation.outside import AskedCarrier, AskedProvider, Mailbox, Outside
from tests.simulation.process import Process, current, task_factory
from tests.simulation.reached import catching, count_the_end, is_foreseen, of_a_fast_clock, watching
from tests.simulation.scheduler import Act, Scheduler

LONGEST: Final = 40
"""How many times, after the storm, half a minute may pass before everything is done."""
CALM_SECONDS: Final = 30.5
SWEEP_SECONDS: Final = 8.0
MOST_DEATHS: Final = 6
MAILS: Final = replace(delivery.MAIL_RETRIES, deadline=10, first=1, longest=30)
"""The policy of mails, with pauses that end while it is calm."""


@dataclass(frozen=True)
class Outcome:
    """How a schedule ended."""

    seed: int
    trace: Sequence[str]
    steps: int
    findings: Sequence[Finding]
    unforeseen: Sequence[str] = ()
    """Exceptions that are no fate: faults of the code itself. They are findings too."""
    reached: Mapping[str, int] = field(default_factory=dict)
    """How often each state of `reached.STATES` was."""

    def __str__(self) -> str:
        """For whoever has to find out why."""
        return "\n".join(
            [
                f"seed {self.seed}: {len(self.findings)} promises are not kept",
                *(f"  {finding}" for finding in self.findings),
                f"repeat it alone: python -m tests.simulation --seed {self.seed}",
                *(f"{number:5} {line}" for number, line in enumerate(self.trace, start=1)),
            ]
        )


@dataclass
class _Running:
    """A service's process while it runs."""

    service: str
    process: Process
    root: "asyncio.Task[None]"
    intake: Intake | None = None


@dataclass
class System:
    """The whole of it."""

    database: SimulatedDatabase
    scheduler: Scheduler
    broker: SimulatedBroker = field(init=False)
    outside: Outside = field(init=False)
    mailbox: Mailbox = field(init=False)
    history: History = field(default_factory=History)
    running: dict[str, _Running] = field(default_factory=dict)
    """Which processes run, by name: `billing`, and beside it perhaps `billing.2`."""
    names: Sequence[str] = ()
    ended: list[Process] = field(default_factory=list)
    deaths: dict[str, int] = field(default_factory=dict)
    replayed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often a mail was sent again by hand, by order and stage."""
    poison: set[UUID] = field(default_factory=set)
    killers: set[UUID] = field(default_factory=set)
    """Poison that kills each process that handles it."""
    killed: Counter[str] = field(default_factory=Counter)
    """How many processes of each service that was."""
    unreadable: int = 0
    failures: list[BaseException] = field(default_factory=list)
    """What ended a process that should not have ended."""

    def __post_init__(self) -> None:
        self.services = {name: load(name) for name in SERVICES}
        self.broker = SimulatedBroker(
            self.scheduler,
            {name: [type_of(event) for event in service.handlers] for name, service in self.services.items()},
        )
        self.outside = Outside(self.scheduler)
        self.mailbox = Mailbox(self.outside)
        self._start = start_of_schedule()
        self._provider = AskedProvider(SimulatedProvider(self._timed("provider")), self.outside)
        self._carrier = AskedCarrier(SimulatedCarrier(self._timed("carrier"), "BR"), self.outside)
        self._renderer = MailRenderer("Shop <shop@example.com>")

    # Processes

    def start(self, name: str) -> None:
        """A new process of the service."""
        service = name.partition(".")[0]
        process = Process(name, self._died)
        transactions = SteppedTransactions(self.database.pools[service], self.scheduler, self._start)
        participant = Participant(
            service,
            self._stumbling(self.services[service].handlers),
            transactions,
            self.broker,
            self._runners(service, transactions),
            chores=self._chores(service),
            sweep_seconds=SWEEP_SECONDS,
        )
        intake = Intake(transactions) if service == "order" else None
        root = process.run(participant.run(), name)
        root.add_done_callback(partial(self._over, process))
        self.running[name] = _Running(service, process, root, intake)

    def door(self) -> tuple[Process, Intake] | None:
        """A process that takes orders, if one runs."""
        doors = [(r.process, r.intake) for r in self.running.values() if r.intake]
        return self.scheduler.random.choice(doors) if doors else None

    def acts(self) -> list[Act]:
        """What happens to processes."""
        return [
            *self.broker.acts(),
            Act("a process dies", 0.02, self._may_die, self._kill_one),
            Act("everything dies", 0.005, self._may_die, self._kill_all),
            Act("a day passes", 0.003, lambda: True, self._let_a_day_pass),
        ]

    def start_all(self) -> None:
        """Whatever does not run is started."""
        for name in self.names:
            if name not in self.running:
                self.scheduler.happened(f"{name} starts")
                self.start(name)

    def restart(self) -> Act:
        """Somebody starts what died."""
        return Act("a process starts", 0.3, lambda: len(self.running) < len(self.names), self._start_one)

    async def end(self) -> None:
        """Everything is over."""
        for running in list(self.running.values()):
            running.process.kill()
        for process in self.ended:
            await process.ended()
        for task in self.outside.late:
            task.cancel()
        await asyncio.gather(*self.outside.late, return_exceptions=True)

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
                return {Shipment: booking.runner(self._carrier, transactions, sweep_seconds=SWEEP_SECONDS)}
            case "email":
                return {
                    Mail: delivery.runner(
                        *(self._renderer, self.mailbox, transactions),
                        concurrency=8,
                        policy=MAILS,
                        sweep_seconds=SWEEP_SECONDS,
                    )
                }
            case _:
                return {}

    def _chores(self, service: str) -> list[Chore]:
        """As the service has them by default, but for the clock's: processes have the scheduler's time."""
        own: dict[str, Chore] = {
            "order": IdempotencyKeyCleaner(timedelta(days=30)),
            "email": OldMailCleaner(timedelta(days=30)),
        }
        settings = ServiceSettings(database_url=self.database.url)
        of_all = [c for c in chores_of_every_service(settings) if not isinstance(c, ClockWatch)]
        return [*of_all, *([own[service]] if service in own else [])]

    def _stumbling(self, handlers: Handlers) -> Handlers:
        def stumbling(handler: Handler) -> Handler:
            async def handle(events: Sequence[Any], tx: Transaction) -> None:
                if any(event.id in self.killers for event in events):
                    self._die_of_poison()
                await handler(events, tx)
                self.scheduler.stumble()
                if self.scheduler.swallows:
                    with suppress(asyncpg.PostgresError):
                        await tx.fetch("SELECT 1 / 0")

            return handle

        return {event: stumbling(handler) for event, handler in handlers.items()}

    def _die_of_poison(self) -> None:
        process = current()
        assert process
        self.killed[process.name.partition(".")[0]] += 1
        process.kill()
        raise asyncio.CancelledError

    def _may_die(self) -> bool:
        return bool(self.running) and sum(self.deaths.values()) < MOST_DEATHS

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
        self.scheduler.loop.let_pass(timedelta(hours=25).total_seconds())
        return "a day passes"

    def _died(self, process: Process) -> None:
        service = process.name.partition(".")[0]
        self.deaths[service] = self.deaths.get(service, 0) + 1
        self.ended.append(process)
        del self.running[process.name]
        self.broker.left_by(process)

    def _over(self, process: Process, root: "asyncio.Task[None]") -> None:
        if not process.dead:
            error = None if root.cancelled() else root.exception()
            self.failures.append(error or AssertionError(f"{process.name} ended by itself."))


async def run(
    seed: int, database: SimulatedDatabase, loop: VirtualLoop, fates: Sequence[Fate] = ()
) -> Outcome:
    """Runs the schedule of this seed, whatever comes of it."""
    with loop.working():
        await database.empty()
    scheduler = Scheduler(seed, loop)
    system = System(database, scheduler)
    reached: Counter[str] = Counter()
    unforeseen: list[str] = []
    with _seeded(seed), catching(unforeseen, reached), watching(reached), _stepped(scheduler):
        choice = scheduler.random
        system.names = [
            *SERVICES,
            *(f"{service}.2" for service in SERVICES if choice.random() < 0.2),
        ]
        scheduler.brew(system.acts(), system.names, fates)
        scheduler.always(system.restart())
        system.start_all()
        clients = [
            asyncio.create_task(place(wish, system.history, scheduler, system.door))
            for wish in _wishes(choice)
        ]
        _poison(system, choice)
        findings: list[Finding] = []
        await scheduler.storm()
        system.start_all()
        if not await _calm(system, clients):
            findings.append(Finding("I22", "The backlog does not drain although nothing fails any more."))
        await system.end()
        for client in clients:
            client.cancel()
        ends = await asyncio.gather(*clients, return_exceptions=True)
        system.failures += [end for end in ends if isinstance(end, Exception)]
    with loop.working():
        findings += [Finding("I22", f"A process ended by itself: {error!r}") for error in system.failures]
        findings += await checks.findings(system)
        await count_the_end(reached, database, scheduler.trace)
    reached["given up work replayed"] += system.replayed.total()
    unforeseen += [repr(error) for error in system.failures if not is_foreseen(error)]
    if unforeseen:
        findings.append(Finding("I22", f"Exceptions that are no fate: {unforeseen}."))
    trace = [str(line) for line in scheduler.trace]
    return Outcome(seed, trace, scheduler.steps, findings, unforeseen, reached)


async def _calm(system: System, clients: "Sequence[asyncio.Task[None]]") -> bool:
    """Nothing fails any more, time passes; whether everything came to rest."""
    for _ in range(LONGEST):
        await system.scheduler.rest()
        system.start_all()  # what an event has killed meanwhile
        await system.scheduler.rest()
        with system.scheduler.loop.working():
            system.replayed.update(replayed := await checks.replay_mails(system.database))
            if (
                all(client.done() for client in clients)
                and system.broker.at_rest
                and not replayed
                and not await checks.waiting(system.database)
            ):
                return True
        system.scheduler.let_pass(CALM_SECONDS)
    return False


def _wishes(choice: random.Random) -> list[Wish]:
    """A few orders: some are declined, some can't be sent, some are asked for twice."""
    kinds: list[dict[str, Any]] = [
        {},
        {"country": "AQ"},
        {"method": "pm_card_chargeDeclined"},
        {"method": "pm_nobody_knows"},
        {"quantity": 3},
    ]
    wishes: list[Wish] = []
    for letter in "ABCD"[: choice.randint(2, 4)]:
        order = an_order(letter, **choice.choices(kinds, (3, 3, 1, 1, 1))[0])
        wishes.append(Wish(order, f"key-{letter}" if choice.random() < 0.8 else None))
    keyed = [wish for wish in wishes if wish.key]
    if keyed and choice.random() < 0.4:
        wishes.append(choice.choice(keyed))
    if keyed and choice.random() < 0.3:
        wishes.append(Wish(an_order("Z", quantity=7), choice.choice(keyed).key))
    return wishes


def _poison(system: System, choice: random.Random) -> None:
    """What no service can handle: an unknown type, an order that nobody placed, bytes, a process's death."""
    if choice.random() < 0.3:
        event_id = of_a_fast_clock(uuid7(), weeks=choice.choice((0, 5)))
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
        system.killers.add(event.id)
    if choice.random() < 0.3:
        system.broker.put(choice.choice(SERVICES), "?", b"nothing")
        system.unreadable += 1


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Where the system itself rolls dice, they fall by the seed."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


@contextmanager
def _stepped(scheduler: Scheduler) -> Iterator[None]:
    loop = scheduler.loop
    loop.set_task_factory(task_factory)
    killpoints.arm(scheduler.reached)
    try:
        yield
    finally:
        killpoints.arm(None)
        loop.set_task_factory(None)
