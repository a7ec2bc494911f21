"""The catalogue of faults: every kind, its targets, and how often a soak strikes it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

from events.contracts import (
    InvoiceCreated,
    OrderCreated,
    PaymentConfirmed,
    PaymentFailed,
    ShipmentError,
    Shipped,
    type_of,
)
from events.killpoints import KillPoint
from sandbox.stripe.faults import Behaviour
from tests.faults import postgres, rabbitmq
from tests.faults.cluster import REPLICAS, Provider
from tests.faults.cuts import LINES, MOMENTS, Cut, CutAt, HalfOpen, Line, Refused, Silenced, Slow
from tests.faults.deaths import Killed, KilledAt, KilledByMoment, Paused, Sigterm
from tests.faults.deliveries import POISON_BODIES, DeliveredAgain, NewerEvent, Poison
from tests.faults.fault import Fault
from tests.faults.lanes import Pace
from tests.faults.mail_server import WrongAnswer
from tests.faults.provider import OUTAGES, STEPS, Misbehaves, Outage
from tests.faults.upgrades import RolledBack

WORKER: Final = (
    KillPoint.COMMITTING,
    KillPoint.COMMITTED,
    KillPoint.ACKNOWLEDGING,
    KillPoint.ACKNOWLEDGED,
)
RUNNER: Final = (
    KillPoint.PERFORMING,
    KillPoint.PERFORMED,
    KillPoint.COMMITTING,
    KillPoint.COMMITTED,
    KillPoint.CLAIMED,
)
GROUP: Final = (KillPoint.COMMITTING, KillPoint.COMMITTED)

TASKS: Final[dict[str, dict[str, Sequence[KillPoint]]]] = {
    "order": {"order worker": WORKER, "order relay": RUNNER, "group commit": GROUP},
    "invoice": {"invoice worker": WORKER, "invoice relay": RUNNER},
    "billing": {
        "billing worker": WORKER,
        "billing relay": RUNNER,
        "billing payments": RUNNER,
        "billing refunds": RUNNER,
        "group commit": GROUP,
    },
    "shipment": {
        "shipment worker": WORKER,
        "shipment relay": RUNNER,
        "shipment bookings": RUNNER,
        "group commit": GROUP,
    },
    "email": {"email worker": WORKER, "email delivery": RUNNER},
}
"""The kill points that each task of a service reaches, by the task's name.

`group commit` is the order service's intake, and the ledgers of the simulated provider and carrier.
"""
SERVICE_REPLICAS: Final = tuple(
    f"{service}-{number}" for service, count in REPLICAS.items() for number in range(1, count + 1)
)
"""Every process of a service."""
_REPLICAS: Final[dict[Provider, Sequence[str]]] = {
    "simulated": (*SERVICE_REPLICAS, "reconcile-1"),
    "stripe": (*SERVICE_REPLICAS, "reconcile-1", "stripe-1"),
}

INTERRUPTED_LINE: Final[Mapping[str, Line]] = {
    "relay": "broker",
    "payments": "ledger",
    "refunds": "ledger",
    "bookings": "database",
    "delivery": "mail",
}
"""What must fail before a runner claims rows: otherwise it does the work from memory."""
SERVICES: Final = tuple(REPLICAS)
LOSABLE_BINDINGS: Final = {
    "order": (InvoiceCreated, PaymentConfirmed, Shipped),
    "invoice": (OrderCreated,),
    "billing": (InvoiceCreated, ShipmentError),
    "shipment": (PaymentConfirmed,),
    "email": (OrderCreated, InvoiceCreated, PaymentFailed, PaymentConfirmed, Shipped),
}
"""Some of the events that each service listens to, whose bindings faults remove."""
TABLES: Final = (
    '"order".timeline',
    "invoice.invoices",
    "billing.payments",
    "provider.charges",
    "shipment.shipments",
    "email.mails",
    "email.inbox",
)
MAIL_ANSWERS: Final = (
    ("RCPT", "451 4.7.1 Greylisted, try again later"),
    ("MAIL", "421 4.3.2 Shutting down"),
    ("DATA", "452 4.3.1 Out of space"),
    ("CONTENT", "451 4.3.0 Not now"),
    ("CONTENT", ""),
    ("RCPT", ""),
)
"""A mail server's temporary errors, by command; an empty answer is a reset."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault."""

    name: str
    weight: int
    """How often a soak strikes it, relative to the others."""
    make: Callable[[Random], tuple[Fault, Sequence[str]]]
    """Makes a fault and its targets; no two faults strike one target at a time."""


def _killed(provider: Provider, dice: Random) -> tuple[Fault, Sequence[str]]:
    replica = dice.choice(_REPLICAS[provider])
    return Killed(replica), [replica]


def _all_of(service: str) -> list[str]:
    return [f"{service}-{number}" for number in range(1, REPLICAS[service] + 1)]


def kill_sites(provider: Provider) -> list[tuple[str, str, KillPoint]]:
    """Every service, task and kill point. With Stripe, billing has no ledger and so no group commit."""
    return [
        (service, task, point)
        for service, tasks in TASKS.items()
        for task, points in tasks.items()
        for point in points
        if (provider, service, task) != ("stripe", "billing", "group commit")
    ]


def killed_at(
    provider: Provider, replica: str, task: str, point: KillPoint
) -> tuple[KilledAt, Sequence[str]]:
    """The fault that kills a replica at one of these sites, and its targets."""
    line = INTERRUPTED_LINE.get(task.rpartition(" ")[2]) if point is KillPoint.CLAIMED else None
    if line == "ledger" and provider == "stripe":
        line = "provider"
    targets = [*_all_of(replica.rpartition("-")[0]), line] if line else [replica]
    return KilledAt(replica, task, point, line), targets


def _killed_at(provider: Provider, dice: Random) -> tuple[Fault, Sequence[str]]:
    service, task, point = dice.choice(kill_sites(provider))
    return killed_at(provider, f"{service}-{dice.randint(1, REPLICAS[service])}", task, point)


def _sigterm(provider: Provider, dice: Random) -> tuple[Fault, Sequence[str]]:
    replica = dice.choice(_REPLICAS[provider])
    return Sigterm(replica), [replica]


def _rolled_back(dice: Random) -> tuple[Fault, Sequence[str]]:
    replica = dice.choice((*SERVICE_REPLICAS, "reconcile-1"))
    return RolledBack((replica,), dice.uniform(2, 15)), [replica]


def _all_rolled_back(dice: Random) -> tuple[Fault, Sequence[str]]:
    replicas = tuple(dice.sample(SERVICE_REPLICAS, len(SERVICE_REPLICAS)))
    return RolledBack(replicas, dice.uniform(2, 8)), replicas


def _paused(provider: Provider, dice: Random) -> tuple[Fault, Sequence[str]]:
    replica = dice.choice(_REPLICAS[provider])
    return Paused(replica, dice.uniform(2, 25)), [replica]


def _cut(provider: Provider, dice: Random) -> tuple[Fault, Sequence[str]]:
    line = dice.choice(LINES[provider])
    return Cut(line), [line]


def _refused(provider: Provider, dice: Random) -> tuple[Fault, Sequence[str]]:
    line = dice.choice(LINES[provider])
    return Refused(line, dice.uniform(1, 8)), [line]


def _silenced(provider: Provider, dice: Random) -> tuple[Fault, Sequence[str]]:
    line = dice.choice(LINES[provider])
    return Silenced(line, dice.uniform(5, 20)), [line]


def _half_open(provider: Provider, dice: Random) -> tuple[Fault, Sequence[str]]:
    line = dice.choice(LINES[provider])
    return HalfOpen(line, dice.uniform(5, 20)), [line]


def _slow(provider: Provider, dice: Random) -> tuple[Fault, Sequence[str]]:
    line = dice.choice(LINES[provider])
    pace = Pace(delay=dice.uniform(0.05, 0.5), bytes_per_second=dice.choice((None, 50_000, 500_000)))
    return Slow(line, pace, dice.uniform(2, 6)), [line]


def _lost_answer(provider: Provider, dice: Random) -> tuple[Fault, Sequence[str]]:
    line = dice.choice(LINES[provider])
    return CutAt(line, MOMENTS[line][0]), [line]


def _cut_at(provider: Provider, dice: Random) -> tuple[Fault, Sequence[str]]:
    line = dice.choice(LINES[provider])
    return CutAt(line, dice.choice(MOMENTS[line])), [line]


def _killed_by_moment(provider: Provider, dice: Random) -> tuple[Fault, Sequence[str]]:
    line = dice.choice(LINES[provider])
    return KilledByMoment(line, dice.choice(MOMENTS[line])), [line, *_REPLICAS[provider]]


def _terminated(dice: Random) -> tuple[Fault, Sequence[str]]:
    return postgres.Terminated(dice.choice((0.1, 0.5, 1.0))), ["database"]


def _postgres_away(dice: Random) -> tuple[Fault, Sequence[str]]:
    return postgres.Restarted(by_kill=dice.random() < 0.5), ["database", "ledger"]


def _postgres_setting(dice: Random) -> tuple[Fault, Sequence[str]]:
    make = dice.choice((postgres.read_only, postgres.serializable))
    return make(dice.uniform(1, 5)), ["database", "ledger"]


def _too_many_connections(dice: Random) -> tuple[Fault, Sequence[str]]:
    return postgres.TooManyConnections(dice.choice(SERVICES), dice.uniform(2, 6)), ["database"]


def _locked(dice: Random) -> tuple[Fault, Sequence[str]]:
    return postgres.Locked(dice.choice(TABLES), dice.uniform(2, 8)), ["database"]


def _rabbitmq_away(dice: Random) -> tuple[Fault, Sequence[str]]:
    return rabbitmq.Restarted(by_kill=dice.random() < 0.5), ["broker"]


def _out_of_memory(dice: Random) -> tuple[Fault, Sequence[str]]:
    return rabbitmq.OutOfMemory(dice.uniform(2, 12)), ["broker"]


def _closed_by_broker(_: Random) -> tuple[Fault, Sequence[str]]:
    return rabbitmq.ConnectionsClosed(), ["broker"]


def _lost_in_broker(dice: Random) -> tuple[Fault, Sequence[str]]:
    service = dice.choice(SERVICES)
    event_type = type_of(dice.choice(LOSABLE_BINDINGS[service]))
    faults: tuple[Fault, ...] = (
        rabbitmq.QueueDeleted(service),
        rabbitmq.QueuePurged(service),
        rabbitmq.BindingGone(service, event_type),
    )
    return dice.choice(faults), ["broker", *_all_of(service)]


def _delivered_again(dice: Random) -> tuple[Fault, Sequence[str]]:
    service = dice.choice(("order", "invoice", "billing", "shipment"))
    return DeliveredAgain(service, dice.randint(1, 60), dice.randrange(1 << 30)), ["broker"]


def _poison(dice: Random) -> tuple[Fault, Sequence[str]]:
    return Poison(dice.choice(SERVICES), dice.choice(tuple(POISON_BODIES))), ["broker"]


def _newer(dice: Random) -> tuple[Fault, Sequence[str]]:
    return NewerEvent(dice.choice(SERVICES)), ["broker"]


def _mail_answer(dice: Random) -> tuple[Fault, Sequence[str]]:
    command, answer = dice.choice(MAIL_ANSWERS)
    return WrongAnswer(command, answer, dice.uniform(1, 5)), ["mail"]


def _misbehaves(dice: Random) -> tuple[Fault, Sequence[str]]:
    behaviour = dice.choice(tuple(Behaviour))
    [step] = dice.choices(STEPS, (4, 8, 1, 1))
    return Misbehaves(behaviour, step, dice.randint(1, 20)), ["provider"]


def _provider_outage(dice: Random) -> tuple[Fault, Sequence[str]]:
    return Outage(dice.choice(OUTAGES), dice.uniform(1, 6)), ["provider"]


def kinds(provider: Provider) -> tuple[Kind, ...]:
    """The kinds that a soak with this payment provider strikes."""
    every = (
        Kind("process killed", 200, partial(_killed, provider)),
        Kind("process killed at a kill point", 300, partial(_killed_at, provider)),
        Kind("process terminated", 40, partial(_sigterm, provider)),
        Kind("process replaced by the previous version's", 30, _rolled_back),
        Kind("every process replaced in turn", 3, _all_rolled_back),
        Kind("process paused", 15, partial(_paused, provider)),
        Kind("connections cut", 150, partial(_cut, provider)),
        Kind("connections refused for a while", 30, partial(_refused, provider)),
        Kind("connections gone silent", 6, partial(_silenced, provider)),
        Kind("connections half open", 6, partial(_half_open, provider)),
        Kind("connections slow", 15, partial(_slow, provider)),
        Kind("answer lost", 120, partial(_lost_answer, provider)),
        Kind("connection cut at a moment", 80, partial(_cut_at, provider)),
        Kind("client killed at a moment", 40, partial(_killed_by_moment, provider)),
        Kind("PostgreSQL terminates connections", 60, _terminated),
        Kind("PostgreSQL restarted or killed", 6, _postgres_away),
        Kind("PostgreSQL read-only or serializable", 8, _postgres_setting),
        Kind("PostgreSQL has no connection left", 8, _too_many_connections),
        Kind("PostgreSQL table locked", 10, _locked),
        Kind("RabbitMQ restarted or killed", 5, _rabbitmq_away),
        Kind("RabbitMQ out of memory", 6, _out_of_memory),
        Kind("RabbitMQ closes connections", 10, _closed_by_broker),
        Kind("queue or binding lost", 8, _lost_in_broker),
        Kind("messages delivered again", 60, _delivered_again),
        Kind("poison delivered", 60, _poison),
        Kind("event of a newer version delivered", 10, _newer),
        Kind("mail server answers with an error", 40, _mail_answer),
    )
    if provider == "stripe":
        return (
            *every,
            Kind("provider misbehaves", 250, _misbehaves),
            Kind("provider down", 20, _provider_outage),
        )
    return every


def schedule(seed: int, provider: Provider) -> Iterator[tuple[Kind, Fault, Sequence[str]]]:
    """Endless faults: the same seed and provider give the same faults in the same order."""
    dice = Random(seed)
    every = kinds(provider)
    weights = [kind.weight for kind in every]
    while True:
        [kind] = dice.choices(every, weights)
        fault, targets = kind.make(dice)
        yield kind, fault, targets
