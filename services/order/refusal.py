"""Why an order is refused: the rules that it breaks."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """A rule that an order breaks, and the path of the field. Quotes no content of the order."""

    path: tuple[str | int, ...]
    code: str
    message: str


class OrderRefused(ValueError):
    """The order breaks the rules."""

    def __init__(self, broken: Sequence[BrokenRule]) -> None:
        super().__init__(self.__doc__)
        self.broken = tuple(broken)
