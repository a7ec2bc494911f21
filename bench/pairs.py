"""Compares this checkout with an earlier commit, as the ratio of their figures in each round."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from bench.rounds import Round, Turn, quarter, steady
from bench.systems import OURS


@dataclass(frozen=True)
class Figure:
    """One figure of the comparison."""

    name: str
    of: Callable[[Turn], float]
    less_is_better: bool = True


FIGURES: Final = (
    Figure("CPU ms an order, 128 connections", lambda turn: turn.closed[128].cpu_total),
    Figure("CPU ms an order, 32", lambda turn: turn.closed[32].cpu_total),
    Figure("orders/s, 128 connections", lambda turn: turn.closed[128].per_second, less_is_better=False),
    Figure("orders/s, 32", lambda turn: turn.closed[32].per_second, less_is_better=False),
    Figure("POST p99 ms, 128 connections", lambda turn: turn.closed[128].post.p99),
    Figure("POST p99 ms, 32", lambda turn: turn.closed[32].post.p99),
    Figure("order to last mail p50 ms, 20/s", lambda turn: steady(turn).end_to_end.p50),
    Figure("order to last mail p50 ms, a quarter of capacity", lambda turn: quarter(turn).end_to_end.p50),
    Figure("CPU ms an order, 20/s", lambda turn: steady(turn).cpu_total),
    Figure("CPU ms an order, a quarter of capacity", lambda turn: quarter(turn).cpu_total),
)


@dataclass(frozen=True)
class Compared:
    """A figure of both commits in every round."""

    figure: Figure
    now: list[float]
    earlier: list[float]

    @property
    def ratios(self) -> list[float]:
        """This checkout's figure divided by the earlier commit's, for each round."""
        return [now / earlier for now, earlier in zip(self.now, self.earlier, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return median(self.ratios)

    @property
    def is_sure(self) -> bool:
        """Whether all rounds agree: all better, or all worse."""
        return min(self.ratios) > 1 or max(self.ratios) < 1

    @property
    def is_better(self) -> bool:
        """Whether this checkout is better than the earlier commit."""
        return self.ratio < 1 if self.figure.less_is_better else self.ratio > 1

    def document(self) -> dict[str, Any]:
        """Returns the fields for `results.json`."""
        return {"now": self.now, "earlier": self.earlier, "ratios": self.ratios, "ratio": self.ratio}


def compare(rounds: Sequence[Round], earlier: str) -> list[Compared]:
    """Compares every figure of Orderflow with the `earlier` system's, from the rounds that have both."""
    both = [played.turns for played in rounds if {OURS, earlier} <= played.turns.keys()]
    if not both:
        return []
    return [
        Compared(
            figure, [figure.of(turns[OURS]) for turns in both], [figure.of(turns[earlier]) for turns in both]
        )
        for figure in FIGURES
    ]
