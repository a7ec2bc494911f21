"""The orders in `examples/`, and where each of them ends."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ops.errors import CommandFailed

FOLDER: Final = Path(__file__).resolve().parents[2] / "examples"


class ExamplesUnusable(CommandFailed):
    """The example orders are not there, or can't be read."""


@dataclass(frozen=True)
class Example:
    """An order as a merchant's backend would place it, and what must become of it."""

    name: str
    order: dict[str, Any]
    total: str
    """With tax, as the API says it."""
    ends: str
    """Its final status."""
    reason: str | None = None
    """The code of why it did not end well."""
    sent_twice: bool = False

    @property
    def reference(self) -> str:
        """The merchant's own number for it."""
        return str(self.order["reference"])

    @property
    def country(self) -> str:
        """Where the parcel goes."""
        return str(self.order["shipping_address"]["country"])

    @property
    def currency(self) -> str:
        """What it is paid in."""
        return str(self.order["currency"])


def load(folder: Path) -> list[Example]:
    """The examples in the order of `expected.toml`. Raises ExamplesUnusable."""
    try:
        expected = tomllib.loads((folder / "expected.toml").read_text("utf-8"))
        return [
            Example(name=name, order=json.loads((folder / f"{name}.json").read_text("utf-8")), **outcome)
            for name, outcome in expected.items()
        ]
    except (OSError, ValueError, TypeError) as error:
        raise ExamplesUnusable(f"The example orders in {folder} can't be read: {error}") from error
