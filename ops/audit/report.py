"""What an audit finds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True)
class Breach:
    """One promise that is not kept."""

    invariant: str
    """Its id, as in docs/guarantees.md: `I6`."""
    sentence: str
    """What is wrong, for a person."""
    order_ids: tuple[UUID, ...] = ()
    """The orders concerned, at most twenty of them."""
    count: int = 1
    """How many cases there are in all."""


@dataclass(frozen=True)
class Unseen:
    """Something that the audit could not look at."""

    reason: str
    """Why, for a person."""
    invariants: tuple[str, ...]
    """The ids of what was not checked for this reason, or not in full."""


@dataclass(frozen=True)
class Report:
    """Everything that an audit has to say."""

    orders: int | None
    """How many there are, or were accepted since the moment asked for; None where they can't be read."""
    checked: Mapping[str, str]
    """What there is to check: each invariant's promise in words, by its id."""
    breaches: tuple[Breach, ...]
    unseen: tuple[Unseen, ...] = ()
    notes: tuple[str, ...] = ()
    """What is no breach, and worth knowing: what waits, and what could not be judged."""
    dead: Mapping[str, int] = field(default_factory=dict)
    """How many events each service has set aside as dead, for a person to look at."""

    @property
    def holds(self) -> bool:
        """Whether everything was seen, and every promise is kept."""
        return not self.breaches and not self.unseen
