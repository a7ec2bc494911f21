"""The catalogue: which faults there are, how often a soak strikes each kind, and on what."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from events.killpoints import KillPoint
from tests.faults import postgres, rabbitmq
from tests.faults.cluster import REPLICAS
from tests.faults.cuts import LINES, AnswerLost, Cut, Line, Refused, Silenced
from tests.faults.deaths import AskedToEnd, Killed, KilledAt, Paused
from tests.faults.deliveries import SORTS, DeliveredAgain, Poison
from tests.faults.fault import Fault
from tests.faults.letterbox import Grumpy

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
"""Where each service can be killed: its tasks by their names, and the kill points that they reach.

`group commit` is the order's intake, and the books of the simulated provider and carrier.
"""
PLACES: Final = tuple(
    (service, task, point)
    for service, tasks in TASKS.items()
    for task, points in tasks.items()
    for point in points
)
_REPLICAS: Final = tuple(f"{service}-{n}" for service, count in REPLICAS.items() for n in range(1, count + 1))

DISTURBANCE: Final[Mapping[str, Line]] = {
    "relay": "broker",
    "payments": "ledger",
    "refunds": "ledger",
    "bookings": "database",
    "delivery": "mail",
}
"""What has to be away for a moment before a runner claims anything: else its work is done from memory."""
SERVICES: Final = tuple(REPLICAS)
TABLES: Final = (
    '"order".timeline',
    "invoice.invoices",
    "billing.payments",
    "provider.charges",
    "shipment.shipments",
    "email.mails",
    "email.inbox",
)
MOODS: Final = (
    ("RCPT", "451 4.7.1 Greylisted, try again later"),
    ("MAIL", "421 4.3.2 Shutting down"),
    ("DATA", "452 4.3.1 Out of space"),
    ("CONTENT", "451 4.3.0 Not now"),
    ("CONTENT", ""),
    ("RCPT", ""),
)
"""Other answers of a mail server than usual, by command; an empty one is a reset."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault."""

    name: str
    weight: int
    """How often a soak strikes it, against the others."""
    make: Callable[[Random], tuple[Fault, Sequence[str]]]
    """One of them, and its targets: no two faults strike one target at a time."""


def _killed(dice: Random) -> tuple[Fault, Sequence[str]]:
    replica = dice.choice(_REPLICAS)
    return Killed(replica), [replica]


def killed_at(replica: str, task: str, point: KillPoint) -> tuple[Fault, Sequence[str]]:
    """The death of a replica at one of PLACES, and its targets."""
    line = DISTURBANCE.get(task.rpartition(" ")[2]) if point is KillPoint.CLAIMED else None
    return KilledAt(replica, task, point, line), [replica, *([line] if line else [])]


def _killed_at(dice: Random) -> tuple[Fault, Sequence[str]]:
    service, task, point = dice.choice(PLACES)
    return killed_at(f"{service}-{dice.randint(1, REPLICAS[service])}", task, point)


def _asked_to_end(dice: Random) -> tuple[Fault, Sequence[str]]:
    replica = dice.choice(_REPLICAS)
    return AskedToEnd(replica), [replica]


def _paused(dice: Random) -> tuple[Fault, Sequence[str]]:
    replica = dice.choice(_REPLICAS)
    return Paused(replica, dice.uniform(2, 25)), [replica]


def _cut(dice: Random) -> tuple[Fault, Sequence[str]]:
    line = dice.choice(LINES)
    return Cut(line), [line]


def _refused(dice: Random) -> tuple[Fault, Sequence[str]]:
    line = dice.choice(LINES)
    return Refused(line, dice.uniform(1, 8)), [line]


def _silenced(dice: Random) -> tuple[Fault, Sequence[str]]:
    line = dice.choice(LINES)
    return Silenced(line, dice.uniform(5, 20)), [line]


def _answer_lost(dice: Random) -> tuple[Fault, Sequence[str]]:
    line = dice.choice(LINES)
    return AnswerLost(line), [line]


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


def _again(dice: Random) -> tuple[Fault, Sequence[str]]:
    service = dice.choice(("order", "invoice", "billing", "shipment"))
    return DeliveredAgain(service, dice.randint(1, 60), dice.randrange(1 << 30)), ["broker"]


def _poison(dice: Random) -> tuple[Fault, Sequence[str]]:
    return Poison(dice.choice(SERVICES), dice.choice(tuple(SORTS))), ["broker"]


def _grumpy(dice: Random) -> tuple[Fault, Sequence[str]]:
    command, answer = dice.choice(MOODS)
    return Grumpy(command, answer, dice.uniform(1, 5)), ["mail"]


KINDS: Final = (
    Kind("process killed", 200, _killed),
    Kind("process killed at a kill point", 300, _killed_at),
    Kind("process asked to end", 40, _asked_to_end),
    Kind("process paused", 15, _paused),
    Kind("connections cut", 150, _cut),
    Kind("connections refused for a while", 30, _refused),
    Kind("answer lost", 200, _answer_lost),
    Kind("connections gone silent", 6, _silenced),
    Kind("PostgreSQL terminates connections", 60, _terminated),
    Kind("PostgreSQL restarted or killed", 6, _postgres_away),
    Kind("PostgreSQL read-only or serializable", 8, _postgres_setting),
    Kind("PostgreSQL has no connection left", 8, _too_many_connections),
    Kind("PostgreSQL table locked", 10, _locked),
    Kind("RabbitMQ restarted or killed", 5, _rabbitmq_away),
    Kind("RabbitMQ out of memory", 6, _out_of_memory),
    Kind("RabbitMQ closes connections", 10, _closed_by_broker),
    Kind("messages delivered again", 60, _again),
    Kind("poison delivered", 60, _poison),
    Kind("mail server grumpy", 40, _grumpy),
)


def schedule(seed: int) -> Iterator[tuple[Kind, Fault, Sequence[str]]]:
    """Faults without end: the same ones in the same order for the same seed."""
    dice = Random(seed)
    weights = [kind.weight for kind in KINDS]
    while True:
        [kind] = dice.choices(KINDS, weights)
        fault, targets = kind.make(dice)
        yield kind, fault, targets
