"""The report: the table, the file of results, and the plot."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.machine import Steadiness
from bench.measure import SERVERS, Latency, Measurement
from bench.pairs import Compared, compare
from bench.round_trips import Cost
from bench.rounds import CONNECTIONS, STEADY_PER_SECOND, Round, Turn, capacity, quarter, steady
from bench.systems import CELERY, FASTSTREAM, OURS, SAME_GUARANTEES

_PARTS: Final = ("services", *SERVERS)
"""The parts that CPU is counted for."""


@dataclass(frozen=True)
class Goal:
    """A ratio to be reached."""

    name: str
    must: float
    reach_for: float
    ratio: Callable[[Round], float | None]
    """Computes the ratio of a round; None if one of the sides took no part."""
    less_is_better: bool = False

    def is_met(self, value: float, goal: float) -> bool:
        """Returns whether the value reaches the goal."""
        return value <= goal if self.less_is_better else value >= goal


def _against(peer: str, figure: Callable[[Turn], float]) -> Callable[[Round], float | None]:
    def ratio(played: Round) -> float | None:
        ours, theirs = played.turns.get(OURS), played.turns.get(peer)
        return figure(ours) / figure(theirs) if ours and theirs else None

    return ratio


def _throughput(peer: str, connections: int) -> Callable[[Round], float | None]:
    return _against(peer, lambda turn: turn.closed[connections].per_second)


def _cpu_over_floor(played: Round) -> float | None:
    ours = played.turns.get(OURS)
    return ours.closed[128].cpu_total / played.floor.total if ours and played.floor else None


def _steady_p50(peer: str) -> Callable[[Round], float | None]:
    return _against(peer, lambda turn: steady(turn).end_to_end.p50)


def _quarter_p50(peer: str) -> Callable[[Round], float | None]:
    return _against(peer, lambda turn: quarter(turn).end_to_end.p50)


GOALS: Final = (
    Goal("orders/s against FastStream, 128 connections", 15, 20, _throughput(FASTSTREAM, 128)),
    Goal("orders/s against FastStream, 32", 10, 15, _throughput(FASTSTREAM, 32)),
    Goal("orders/s against Celery, 128", 15, 20, _throughput(CELERY, 128)),
    Goal("orders/s against Celery, 32", 10, 15, _throughput(CELERY, 32)),
    Goal("orders/s against the same guarantees, 128", 10, 12, _throughput(SAME_GUARANTEES, 128)),
    Goal("orders/s against the same guarantees, 32", 6, 10, _throughput(SAME_GUARANTEES, 32)),
    Goal("CPU an order against the floor's sum, 128", 2, 1.5, _cpu_over_floor, less_is_better=True),
    Goal(
        "end-to-end p50 at 20/s against the same guarantees",
        1,
        1,
        _steady_p50(SAME_GUARANTEES),
        less_is_better=True,
    ),
    Goal(
        "end-to-end p50 at a quarter of capacity against the same guarantees",
        1,
        1,
        _quarter_p50(SAME_GUARANTEES),
        less_is_better=True,
    ),
    Goal("end-to-end p50 at 20/s against FastStream", 1, 0.5, _steady_p50(FASTSTREAM), less_is_better=True),
    Goal(
        "end-to-end p50 at a quarter of capacity against FastStream",
        1,
        0.5,
        _quarter_p50(FASTSTREAM),
        less_is_better=True,
    ),
    Goal(
        "POST p99 at saturation against FastStream",
        0.25,
        0.1,
        _against(FASTSTREAM, lambda turn: turn.closed[128].post.p99),
        less_is_better=True,
    ),
)


@dataclass
class Results:
    """All results of a run."""

    cores: int
    servers: str = ""
    earlier: str = ""
    """The name of the system that is an earlier commit, if there is one."""
    tuning: dict[str, dict[str, object]] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    trips: dict[str, dict[str, Cost]] = field(default_factory=dict)
    """By system, and by user of its database."""
    scenarios: dict[str, Any] = field(default_factory=dict)

    def ratios(self, goal: Goal) -> list[float]:
        """Returns a goal's ratio in each round that has both sides."""
        return [ratio for played in self.rounds if (ratio := goal.ratio(played)) is not None]

    def compared(self) -> list[Compared]:
        """Compares Orderflow with the earlier commit, if there is one."""
        return compare(self.rounds, self.earlier) if self.earlier else []

    def write(self, folder: Path) -> None:
        """Writes `results.json` with every figure of every round, and the ratios."""
        document = asdict(self) | {
            "ratios": {goal.name: ratios for goal in GOALS if (ratios := self.ratios(goal))},
            "pairs": {compared.figure.name: compared.document() for compared in self.compared()},
        }
        (folder / "results.json").write_text(json.dumps(document, indent=1, default=str))


def show(results: Results, console: Console) -> None:
    """Prints the tables."""
    if results.rounds:
        console.print(_machine(results))
        console.print(_systems(results))
        console.print(_low_loads(results))
        console.print(_where(results))
        if any(results.ratios(goal) for goal in GOALS):
            console.print(_goals(results))
        if results.earlier:
            console.print(_pairs(results))
    if results.trips:
        console.print(_trips(results))
    for name, found in results.scenarios.items():
        console.print(f"{name}: {found['summary']}")


def _machine(results: Results) -> str:
    """Describes the machine's speed, and its spread over the rounds."""
    machines = [played.machine for played in results.rounds if played.machine]
    parts = []
    for name, figures in (
        (f"a loop in pure Python on all {results.cores} cores at once", [m.python_ms for m in machines]),
        ("a commit of PostgreSQL", [m.commit_ms for m in machines]),
    ):
        seen = Steadiness.of(figures)
        colour = "green" if seen.is_steady else "red"
        parts.append(
            f"{name} {seen.median:.3g} ms, [{colour}]spread over the rounds {100 * seen.spread:.0f} %[/]"
        )
    return "The machine: " + "; ".join(parts)


def _systems(results: Results) -> Table:
    table = Table(title=f"Medians of {len(results.rounds)} rounds on {results.cores} cores")
    _add_columns(
        table,
        "system",
        "connections",
        "orders/s",
        "CPU ms/order",
        "POST p50/p99 ms",
        "end to end p50/p99 ms",
    )
    for name in results.rounds[0].turns:
        turns = [played.turns[name] for played in results.rounds]
        for connections in CONNECTIONS:
            seen = [turn.closed[connections] for turn in turns]
            table.add_row(
                name,
                str(connections),
                f"{_median(seen, lambda m: m.per_second):,.0f}",
                f"{_median(seen, lambda m: m.cpu_total):.2f}",
                _latency([m.post for m in seen]),
                _latency([m.end_to_end for m in seen]),
            )
    return table


def _add_columns(table: Table, *headings: str, words: int = 1) -> None:
    """Adds columns with these headings. The first `words` of them hold words, the others figures."""
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < words else "right")


def _low_loads(results: Results) -> Table:
    """Makes the table for 20 orders/s, and for a quarter of the capacity without batching."""
    table = Table(
        title="Low loads",
        caption=(
            f"Capacity: the orders/s that keep {results.cores} cores busy, at the CPU per order of "
            f"{STEADY_PER_SECOND:.0f}/s, where nothing is batched. Each system has its own."
        ),
    )
    _add_columns(
        table,
        "system",
        "orders/s",
        "of capacity",
        "CPU ms/order",
        "POST p50/p99 ms",
        "end to end p50/p99 ms",
    )
    for name in results.rounds[0].turns:
        turns = [played.turns[name] for played in results.rounds]
        whole = median(capacity(steady(turn).cpu_total, results.cores) for turn in turns)
        for per_second, seen in (
            (STEADY_PER_SECOND, [steady(turn) for turn in turns]),
            (median(turn.quarter_per_second for turn in turns), [quarter(turn) for turn in turns]),
        ):
            table.add_row(
                name,
                f"{per_second:.1f}",
                f"{100 * per_second / whole:.0f} % of {whole:.1f}",
                f"{_median(seen, lambda m: m.cpu_total):.1f}",
                _latency([m.post for m in seen]),
                _latency([m.end_to_end for m in seen]),
            )
    return table


def _pairs(results: Results) -> Table:
    """Makes the table of this checkout against the earlier commit."""
    table = Table(
        title=f"This checkout against {results.earlier}: medians of the rounds' pairs",
        caption=f"Coloured where all rounds agree: by chance once in {2 ** (len(results.rounds) - 1)}.",
    )
    _add_columns(table, "figure", "earlier", "now", "now / earlier", "of each round")
    for compared in results.compared():
        colour = ("green" if compared.is_better else "red") if compared.is_sure else "default"
        table.add_row(
            compared.figure.name,
            f"{median(compared.earlier):,.2f}",
            f"{median(compared.now):,.2f}",
            f"[{colour}]{compared.ratio:.3f}[/]",
            " ".join(f"{ratio:.2f}" for ratio in compared.ratios),
        )
    return table


def _trips(results: Results) -> Table:
    """Makes the table of a lone order's cost at PostgreSQL."""
    table = Table(
        title="The cost of one lone order at PostgreSQL",
        caption="Counted on the wire (ReadyForQuery), minus the cost of an idle system in the same time.",
    )
    _add_columns(table, "system", "user", "round trips", "statements", "transactions", words=2)
    for name, by_user in results.trips.items():
        whole = sum(by_user.values(), start=Cost())
        rows = [*(by_user.items() if len(by_user) > 1 else ()), ("all", whole)]
        for user, trips in rows:
            table.add_row(
                name, user, f"{trips.round_trips:.1f}", f"{trips.statements:.1f}", f"{trips.transactions:.1f}"
            )
    return table


def _where(results: Results) -> Table:
    table = Table(title="Where an order's CPU goes at 128 connections, ms")
    _add_columns(table, "system", *_PARTS, "memory of all processes, MiB")
    for name in results.rounds[0].turns:
        seen = [played.turns[name].closed[128] for played in results.rounds]
        memory = [sum(mib for part, mib in m.memory.items() if part not in SERVERS) for m in seen]
        cpu = [f"{median(m.cpu[column] for m in seen):.2f}" for column in _PARTS]
        table.add_row(name, *cpu, f"{median(memory):.0f}")
    floors = [played.floor for played in results.rounds if played.floor]
    if floors:
        table.add_row(
            "floor (PostgreSQL and RabbitMQ with their clients, FastAPI)",
            f"{median(f.fastapi for f in floors):.2f}",
            f"{median(f.postgresql for f in floors):.2f}",
            f"{median(f.rabbitmq for f in floors):.2f}",
        )
    return table


def _goals(results: Results) -> Table:
    table = Table(title="Ratios: medians of the rounds' pairs")
    _add_columns(table, "ratio", "seen", "must", "reach for")
    for goal in GOALS:
        ratios = results.ratios(goal)
        if ratios:
            seen = median(ratios)
            colour = "green" if goal.is_met(seen, goal.must) else "red"
            sign = "≤" if goal.less_is_better else "≥"
            table.add_row(
                goal.name, f"[{colour}]{seen:.2f}[/]", f"{sign} {goal.must:g}", f"{sign} {goal.reach_for:g}"
            )
    return table


def _median(seen: Sequence[Measurement], figure: Callable[[Measurement], float]) -> float:
    return median(figure(measured) for measured in seen)


def _latency(seen: Sequence[Latency]) -> str:
    return f"{median(s.p50 for s in seen):,.0f} / {median(s.p99 for s in seen):,.0f}"


def plot(results: Results, folder: Path) -> None:
    """Draws `plot.svg`: throughput, CPU by part, and the cost as the tables grow."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # slow to load, and only needed here

    panels: list[Callable[[Any, Results], None]] = []
    if results.rounds:
        panels += [_plot_throughput, _plot_cost]
    if "growth" in results.scenarios:
        panels.append(_plot_growth)
    if not panels:
        return
    figure = Figure(figsize=(4.5 * len(panels) + 1, 3.5), layout="constrained")
    for axes, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.tick_params(labelsize="small")
        draw(axes, results)
    figure.savefig(folder / "plot.svg")


def _plot_throughput(axes: Any, results: Results) -> None:
    names = list(results.rounds[0].turns)
    axes.barh(names, [_median(_saturated(results, name), lambda m: m.per_second) for name in names])
    axes.set_title("orders/s, 128 connections")
    axes.invert_yaxis()


def _plot_cost(axes: Any, results: Results) -> None:
    names = list(results.rounds[0].turns)
    left = [0.0] * len(names)
    for part in _PARTS:
        widths = [median(m.cpu[part] for m in _saturated(results, name)) for name in names]
        axes.barh(names, widths, left=left, label=part)
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    axes.set_title("CPU an order, ms")
    axes.set_yticklabels([])
    axes.invert_yaxis()
    axes.legend(fontsize="small", loc="lower right")


def _plot_growth(axes: Any, results: Results) -> None:
    steps = results.scenarios["growth"]["steps"]
    thousands = [step["orders_in_tables"] / 1000 for step in steps]
    for part in _PARTS:
        axes.plot(thousands, [step["cpu"][part] for step in steps], marker="o", ms=3, label=part)
    axes.set_ylim(bottom=0)
    axes.set_title("CPU an order, ms, by thousands of orders in the tables", fontsize="medium")
    axes.legend(fontsize="small")


def _saturated(results: Results, name: str) -> list[Measurement]:
    return [played.turns[name].closed[128] for played in results.rounds]
