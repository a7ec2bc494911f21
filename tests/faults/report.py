"""The report of a run: the load, the faults and the findings."""

import json
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.checks import Finding
from tests.faults.strikes import Strike


@dataclass
class Report:
    """The results of a run."""

    seed: int
    provider: str
    orders: int = 0
    requests: int = 0
    unknown_answers: int = 0
    seconds: float = 0.0
    drained_in: float = 0.0
    """Seconds from the last fault until the system was quiet."""
    replayed_mails: int = 0
    """Mails that were dead after too many unknown outcomes, and sent again."""
    probe: float = 0.0
    """Seconds that one order took through all services after the last fault."""
    figures: dict[str, int] = field(default_factory=dict)
    """Counts of lost orders, double charges, gaps, stuck orders, dead events and the like."""
    latency: dict[str, float] = field(default_factory=dict)
    """Seconds from an order to its end, by percentile."""
    reached: Mapping[str, int] = field(default_factory=dict)
    """How often each state was reached, from `reached`."""
    strikes: Sequence[Strike] = ()
    findings: list[Finding] = field(default_factory=list)
    most: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    growth: Mapping[str, float] = field(default_factory=dict)
    connections: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether every invariant holds."""
        return not self.findings

    @property
    def effective(self) -> int:
        """The number of faults whose effect was observed."""
        return sum(strike.effective for strike in self.strikes)

    def write(self, folder: Path) -> Path:
        """Writes report.md and report.json; returns the first."""
        document: dict[str, Any] = asdict(self) | {"holds": self.holds, "effective_faults": self.effective}
        (folder / "report.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
        page = folder / "report.md"
        page.write_text(self.markdown(), encoding="utf-8")
        return page

    def markdown(self) -> str:
        """The report as Markdown."""
        verdict = "Everything holds." if self.holds else f"{len(self.findings)} invariants do not hold."
        rate = self.orders / self.seconds if self.seconds else 0.0
        return "\n".join(
            [
                f"# {self.orders:,} orders under {self.effective:,} faults: {verdict}",
                "",
                f"Seed {self.seed}, provider {self.provider}, {self.seconds / 60:.1f} minutes,"
                f" {rate:.0f} orders/s; {self.requests:,} requests, {self.unknown_answers:,} without a"
                f" definite answer and asked again. Drained {self.drained_in:.0f} s after the last fault;"
                f" then an order took {self.probe:.1f} s through all services.",
                "",
                *_table(("figure", "count"), self.figures.items()),
                *_table(("from order to end", "seconds"), ((k, f"{v:.1f}") for k, v in self.latency.items())),
                *_table(("fault", "struck", "effective", "mean seconds"), self._kinds()),
                *_table(
                    ("state", "reached"),
                    ((name, f"{n:,}" if n else "never") for name, n in self.reached.items()),
                ),
                *_table(
                    ("process", "most memory, MiB", "most files", "growth, MiB/minute"),
                    (
                        (
                            name,
                            f"{memory:.0f}",
                            files,
                            f"{self.growth[name]:.1f}" if name in self.growth else "",
                        )
                        for name, (memory, files) in sorted(self.most.items())
                    ),
                ),
                f"PostgreSQL had at most {self.connections} connections.",
                "",
                *_table(
                    ("invariant", "finding", "count"),
                    ((f.invariant, f.sentence, f.count) for f in self.findings),
                ),
                ", ".join(f"{name} {version}" for name, version in self.versions.items()),
                "",
            ]
        )

    def _kinds(self) -> list[tuple[object, ...]]:
        struck = Counter(strike.kind for strike in self.strikes)
        effective = Counter(strike.kind for strike in self.strikes if strike.effective)
        rows: list[tuple[object, ...]] = []
        for kind, count in sorted(struck.items()):
            seconds = [strike.seconds for strike in self.strikes if strike.kind == kind]
            rows.append((kind, count, effective[kind], f"{sum(seconds) / len(seconds):.1f}"))
        return [*rows, ("all", struck.total(), effective.total(), "")]


def _table(head: Sequence[str], rows: Any) -> list[str]:
    lines = [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    if not lines:
        return []
    return [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *lines, ""]


def versions(postgres: str, rabbitmq: str) -> dict[str, str]:
    """The versions of the programs in a run."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "Orderflow": commit or "unknown",
        "Python": platform.python_version(),
        "PostgreSQL": postgres,
        "RabbitMQ": rabbitmq,
    }
