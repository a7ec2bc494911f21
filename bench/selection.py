"""The parts of the benchmark that a run measures, chosen by name with `--only`."""

from argparse import ArgumentTypeError
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from bench import scenarios
from bench.systems import PEERS

ORDERFLOW: Final = "orderflow"
FLOOR: Final = "floor"
ROUNDS: Final = "rounds"
"""All systems and the floor."""
TRIPS: Final = "round-trips"
"""Round trips to PostgreSQL of a lone order, in each system that is named, or in Orderflow."""
NAMES: Final = (ROUNDS, ORDERFLOW, FLOOR, *PEERS, TRIPS, *scenarios.ALL)


def names(text: str) -> list[str]:
    """Splits a comma-separated text into names. Raises ArgumentTypeError."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in found if name not in NAMES]
    if unknown or not found:
        raise ArgumentTypeError(f"{', '.join(unknown) or 'nothing'}: choose from {', '.join(NAMES)}")
    return found


@dataclass(frozen=True)
class Selection:
    """The parts to measure."""

    orderflow: bool
    """Whether Orderflow takes part in the rounds."""
    peers: tuple[str, ...]
    floor: bool
    trips: bool
    scenarios: tuple[str, ...]

    @classmethod
    def of(cls, only: Collection[str], *, against: bool = False) -> "Selection":
        """Selects the named parts, or everything if no name is given.

        The floor needs the rows of Orderflow's turn, and an earlier commit is compared with Orderflow, so
        both select Orderflow too.
        """
        everything = not only
        in_rounds = everything or ROUNDS in only
        floor = in_rounds or FLOOR in only
        return cls(
            orderflow=floor or against or ORDERFLOW in only,
            peers=tuple(name for name in PEERS if in_rounds or name in only),
            floor=floor,
            trips=everything or TRIPS in only,
            scenarios=tuple(name for name in scenarios.ALL if everything or name in only),
        )
