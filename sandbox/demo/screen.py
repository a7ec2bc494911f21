"""The demo's output: the progress of each order, and a table of how they ended."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from events.journey import ENDS, RANKS, WAYS
from sandbox.demo.order import DemoOrder

_SETBACKS: Final = {
    "PAYMENT_FAILED": ("✗", "red"),
    "SHIPMENT_ERROR": ("✗", "red"),
    "PAYMENT_REFUNDED": ("↩", "yellow"),
}
MARKS: Final = {
    status: _SETBACKS.get(status, ("●", "green" if status in ENDS else "cyan")) for status in RANKS
}
"""A character and a colour for each stage."""
_STEPS: Final = max(len(path) for path in WAYS.values())
_LOG_WIDTH: Final = 110
"""The width of the table outside of a terminal, enough for every column."""


class Screen:
    """Shows progress: a live table on a terminal, elsewhere a line for each finished order."""

    def __init__(self, orders: Sequence[DemoOrder], console: Console) -> None:
        self.console = console
        self._orders = orders
        self._printed: set[str] = set()
        self._is_done = False
        self._live = (
            Live(console=console, auto_refresh=False, get_renderable=self._progress_table, transient=True)
            if console.is_terminal
            else None
        )

    @property
    def is_live(self) -> bool:
        """Whether the output is a terminal."""
        return self._live is not None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Shows the live table inside the block."""
        with self._live or nullcontext():
            yield
        self._is_done = True

    def warn(self, notice: str) -> None:
        """Prints a warning of the services, unless the orders are done: then the system is stopping."""
        if not self._is_done:
            self.console.print(notice, markup=False, style="yellow")

    def update(self) -> None:
        """Shows the orders' current state."""
        if self._live:
            self._live.refresh()
            return
        for order in self._orders:
            name = order.example.name
            if order.is_finished and name not in self._printed:
                self._printed.add(name)
                path = " > ".join(WAYS.get(order.status or "", ("refused",)))
                self.console.print(f"{order.example.reference:<9}{path}", soft_wrap=True, highlight=False)

    def _progress_table(self) -> Table:
        """Arranges all orders in as many columns as the terminal's height needs."""
        rows = max(1, self.console.height - 3)
        columns = -(-len(self._orders) // rows)
        if columns > 1:
            rows = -(-len(self._orders) // columns)
        grid = Table.grid(padding=(0, 2))
        for start in range(rows):
            grid.add_row(*(_progress(order) for order in self._orders[start::rows]))
        return grid


def _progress(order: DemoOrder) -> Text:
    """Formats one order in 35 characters."""
    line = Text(f"{order.example.reference:<9}{order.example.country} ", no_wrap=True, overflow="crop")
    for stage, (mark, colour) in MARKS.items():
        if stage in order.stages:
            line.append(mark, colour)
    to_come = _STEPS - len(order.stages)
    line.append((" " if order.is_finished else "·") * to_come, "dim")
    status = "refused" if order.refusal else order.status or ""
    return line.append(f" {status:<17}", MARKS.get(status, ("", ""))[1])


def outcomes(orders: Sequence[DemoOrder]) -> Table:
    """Makes the table of how every order ended."""
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("Order", "To"):
        table.add_column(heading, no_wrap=True)
    table.add_column("Total", justify="right", no_wrap=True)
    table.add_column("Ended at", overflow="fold")
    table.add_column("Invoice", overflow="fold")
    table.add_column("Tracking number, or reason", overflow="fold")
    for order in orders:
        colour = MARKS.get(order.status or "", ("", "red"))[1]
        table.add_row(
            order.example.reference,
            order.example.country,
            f"{order.document['total']} {order.example.currency}" if order.document else "",
            Text(order.status or "refused", colour),
            order.detail("invoice", "number"),
            order.detail("shipment", "tracking_number") or order.detail("reason", "code"),
        )
    return table


def console() -> Console:
    """Returns standard output as a console. Outside of a terminal it is wide, without control codes."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_LOG_WIDTH)
