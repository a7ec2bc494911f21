"""The example orders in `examples/`, with the outcome that each must have."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ops.errors import CommandFailed

FOLDER: Final = Path(__file__).resolve().parents[2] / "examples"


class ExamplesUnusable(CommandFailed):
    """The example orders are missing or can't be read."""


@dataclass(frozen=True)
class Example:
    """An order as a merchant's backend places it, and its expected outcome."""

    name: str
    order: dict[str, Any]
    total: str
    """With tax, as the API formats it."""
    ends: str
    """Its final status."""
    tax: str | None = None
    """The tax in it, if the outcome names it."""
    reason: str | None = None
    """The reason code of an order that is not shipped."""
    sent_twice: bool = False
    """Whether the demo repeats the request under the same Idempotency-Key."""

    @property
    def reference(self) -> str:
        """The merchant's own number of the order."""
        return str(self.order["reference"])

    @property
    def country(self) -> str:
        """The country that the parcel goes to."""
        return str(self.order["shipping_address"]["country"])

    @property
    def currency(self) -> str:
        """The currency of its prices."""
        return str(self.order["currency"])


def load(folder: Path) -> list[Example]:
    """Reads the examples, in the sequence of `expected.toml`. Raises ExamplesUnusable."""
    try:
        expected = tomllib.loads((folder / "expected.toml").read_text("utf-8"))
        return [
            Example(name=name, order=json.loads((folder / f"{name}.json").read_text("utf-8")), **outcome)
            for name, outcome in expected.items()
        ]
    except (OSError, ValueError, TypeError) as error:
        raise ExamplesUnusable(f"The example orders in {folder} can't be read: {error}") from error
