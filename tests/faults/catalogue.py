"""The catalogue: which faults there are, how often a soak strikes each kind, and on what."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from events.killpoints import KillPoint
from tests.faults.cluster import REPLICAS
from tests.faults.cuts import LINES, Cut, Refused, Silenced
from tests.faults.deaths import AskedToEnd, Killed, KilledAt, Paused
from tests.faults.fault import Fault

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


def _killed_at(dice: Random) -> tuple[Fault, Sequence[str]]:
    service, task, point = dice.choice(PLACES)
    replica = f"{service}-{dice.randint(1, REPLICAS[service])}"
    return KilledAt(replica, task, point), [replica]


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
    return Silenced(line), [line]


KINDS: Final = (
    Kind("process killed", 200, _killed),
    Kind("process killed at a kill point", 300, _killed_at),
    Kind("process asked to end", 40, _asked_to_end),
    Kind("process paused", 15, _paused),
    Kind("connections cut", 150, _cut),
    Kind("connections refused for a while", 30, _refused),
    Kind("connections gone silent", 10, _silenced),
)


def schedule(seed: int) -> Iterator[tuple[Kind, Fault, Sequence[str]]]:
    """Faults without end: the same ones in the same order for the same seed."""
    dice = Random(seed)
    weights = [kind.weight for kind in KINDS]
    while True:
        [kind] = dice.choices(KINDS, weights)
        fault, targets = kind.make(dice)
        yield kind, fault, targets
