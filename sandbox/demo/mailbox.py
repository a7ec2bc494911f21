"""The mails to the demo's customers, read from the `.eml` files."""

from collections import Counter
from collections.abc import Iterable, Mapping
from email.parser import BytesHeaderParser
from email.policy import default
from pathlib import Path

from events.journey import WAYS
from sandbox.demo.order import DemoOrder


class Mailbox:
    """A folder of `.eml` files. Each file is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, tuple[str, str]] = {}

    def missing(self, orders: Iterable[DemoOrder]) -> list[str]:
        """Returns a sentence for each missing mail. One is due per order and stage."""
        self._read_new()
        written = set(self._read.values())
        return [
            f"{order.example.reference}: no mail about {stage} to {address}."
            for order in orders
            for stage in WAYS.get(order.status or "", ())
            for address in [order.example.order["customer"]["email"]]
            if (f"{order.id}.{stage}", address) not in written
        ]

    def by_stage(self) -> Mapping[str, int]:
        """Counts the mails about each stage."""
        self._read_new()
        return Counter(message.partition(".")[2] for message, _ in self._read.values())

    def _read_new(self) -> None:
        for path in self._folder.glob("*.eml"):
            if path not in self._read:
                with path.open("rb") as file:
                    headers = BytesHeaderParser(policy=default).parse(file)
                # <order.STAGE@domain>: the same for every copy of a mail
                message = str(headers["Message-ID"]).strip("<> ").partition("@")[0]
                [recipient] = headers["To"].addresses
                self._read[path] = (message, recipient.addr_spec)
