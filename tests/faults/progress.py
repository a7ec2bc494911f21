"""Shows the progress of a run: bars on a terminal, otherwise a line every 15 seconds."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

LINE_SECONDS: Final = 15.0


class Progress(Protocol):
    """Shows how far a run is."""

    def update(self, accepted: int, ended: int, effective: int, struck: int) -> None:
        """Shows the current counts."""
        ...

    def say(self, sentence: str) -> None:
        """Prints a line."""
        ...


class _OnTerminal:
    def __init__(self, bars: Bars, orders: int, faults: int) -> None:
        self._bars = bars
        self._placed = bars.add_task("orders accepted", total=orders)
        self._ended = bars.add_task("orders at their end", total=orders)
        self._faults = bars.add_task("effective faults", total=faults)

    def update(self, accepted: int, ended: int, effective: int, struck: int) -> None:
        self._bars.update(self._placed, completed=accepted)
        self._bars.update(self._ended, completed=ended)
        self._bars.update(self._faults, completed=effective)

    def say(self, sentence: str) -> None:
        self._bars.console.print(sentence)


class _InLines:
    def __init__(self) -> None:
        self._began = time.monotonic()
        self._printed_at = 0.0

    def update(self, accepted: int, ended: int, effective: int, struck: int) -> None:
        now = time.monotonic()
        if now - self._printed_at >= LINE_SECONDS:
            self._printed_at = now
            self.say(
                f"{accepted:,} orders accepted, {ended:,} at their end;"
                f" {effective:,} of {struck:,} faults effective"
            )

    def say(self, sentence: str) -> None:
        sys.stdout.write(f"{time.monotonic() - self._began:6.0f} s  {sentence}\n")
        sys.stdout.flush()


@contextmanager
def progress(orders: int, faults: int) -> Iterator[Progress]:
    """Shows the progress while the context is open."""
    console = Console()
    if not console.is_terminal:
        yield _InLines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console) as bars:
        yield _OnTerminal(bars, orders, faults)
