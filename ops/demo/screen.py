"""What the demo shows: each order on its way, and the table of where they ended."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from events.journey import ENDS, RANKS, WAYS
from ops.demo.journey import Journey

_SETBACKS: Final = {
    "PAYMENT_FAILED": ("✗", "red"),
    "SHIPMENT_ERROR": ("✗", "red"),
    "PAYMENT_REFUNDED": ("↩", "yellow"),
}
LOOK: Final = {
    status: _SETBACKS.get(status, ("●", "green" if status in ENDS else "cyan")) for status in RANKS
}
"""A mark and a colour for each milestone, by rank."""
_STEPS: Final = max(len(path) for path in WAYS.values())
_LOG_WIDTH: Final = 110
"""Characters in a line where nobody watches: wide enough for every column."""


class Screen:
    """Shows journeys while they happen: as a picture that changes, or as lines where it is not a terminal."""

    def __init__(self, journeys: Sequence[Journey], console: Console) -> None:
        self.console = console
        self._journeys = journeys
        self._told: set[str] = set()
        self._is_over = False
        self._live = (
            Live(console=console, auto_refresh=False, get_renderable=self._picture, transient=True)
            if console.is_terminal
            else None
        )

    @property
    def is_watched(self) -> bool:
        """Whether somebody sees it happen."""
        return self._live is not None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The screen is in use until the context ends."""
        with self._live or nullcontext():
            yield
        self._is_over = True

    def tell(self, notice: str) -> None:
        """Something that the services warn of; nothing any more once the orders are through."""
        if not self._is_over:
            self.console.print(notice, markup=False, style="yellow")

    def update(self) -> None:
        """The journeys went on."""
        if self._live:
            self._live.refresh()
            return
        for journey in self._journeys:
            name = journey.example.name
            if journey.is_over and name not in self._told:
                self._told.add(name)
                path = " > ".join(WAYS.get(journey.status or "", ("refused",)))
                self.console.print(f"{journey.example.reference:<9}{path}", soft_wrap=True, highlight=False)

    def _picture(self) -> Table:
        """All journeys, in as many columns as it takes to fit on the screen."""
        rows = max(1, self.console.height - 3)
        columns = -(-len(self._journeys) // rows)
        if columns > 1:
            rows = -(-len(self._journeys) // columns)
        grid = Table.grid(padding=(0, 2))
        for start in range(rows):
            grid.add_row(*(_progress(journey) for journey in self._journeys[start::rows]))
        return grid


def _progress(journey: Journey) -> Text:
    """One journey in 35 characters."""
    line = Text(f"{journey.example.reference:<9}{journey.example.country} ", no_wrap=True, overflow="crop")
    for stage, (mark, colour) in LOOK.items():
        if stage in journey.stages:
            line.append(mark, colour)
    to_come = _STEPS - len(journey.stages)
    line.append((" " if journey.is_over else "·") * to_come, "dim")
    status = "refused" if journey.refusal else journey.status or ""
    return line.append(f" {status:<17}", LOOK.get(status, ("", ""))[1])


def summary(journeys: Sequence[Journey]) -> Table:
    """Where every order ended, with what came of it."""
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("Order", "To"):
        table.add_column(heading, no_wrap=True)
    table.add_column("Total", justify="right", no_wrap=True)
    table.add_column("Ended at", overflow="fold")
    table.add_column("Invoice", overflow="fold")
    table.add_column("Tracking number, or reason", overflow="fold")
    for journey in journeys:
        colour = LOOK.get(journey.status or "", ("", "red"))[1]
        table.add_row(
            journey.example.reference,
            journey.example.country,
            f"{journey.order['total']} {journey.example.currency}" if journey.order else "",
            Text(journey.status or "refused", colour),
            journey.detail("invoice", "number"),
            journey.detail("shipment", "tracking_number") or journey.detail("reason", "code"),
        )
    return table


def console() -> Console:
    """Standard output, for people; in a log it is wide, and has no control codes."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_LOG_WIDTH)
