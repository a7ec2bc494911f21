"""The audit's report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True)
class Breach:
    """One promise that is not kept."""

    invariant: str
    """Its id, as in docs/guarantees.md: `I6`."""
    sentence: str
    """A sentence for a person."""
    order_ids: tuple[UUID, ...] = ()
    """The orders concerned, at most twenty."""
    count: int = 1
    """How many cases there are in all."""


@dataclass(frozen=True)
class Unseen:
    """A part of the system that the audit could not read."""

    reason: str
    """Why, for a person."""
    invariants: tuple[str, ...]
    """The ids of the promises that were not checked for this reason, or not in full."""


@dataclass(frozen=True)
class Report:
    """The result of an audit."""

    orders: int | None
    """How many orders were judged; None if they can't be read."""
    checked: Mapping[str, str]
    """Every promise of this audit as a sentence, by its id; `unseen` tells which could not be checked."""
    breaches: tuple[Breach, ...]
    unseen: tuple[Unseen, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences about work that waits, or that could not be judged; none is a breach."""
    dead: Mapping[str, int] = field(default_factory=dict)
    """The number of dead events of each service that has any; they wait for a person."""

    @property
    def holds(self) -> bool:
        """Whether everything was checked and every promise is kept."""
        return not self.breaches and not self.unseen
