"""The mails that the demo's customers got, read as any mail program would."""

from collections import Counter
from collections.abc import Iterable, Mapping
from email.parser import BytesHeaderParser
from email.policy import default
from pathlib import Path

from events.journey import WAYS
from sandbox.demo.journey import Journey


class Mailbox:
    """A folder of `.eml` files. What was read once is not read again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, tuple[str, str]] = {}

    def missing(self, journeys: Iterable[Journey]) -> list[str]:
        """Mails that should be there and are not, a sentence each; one per order and stage is due."""
        self._look()
        there = set(self._read.values())
        return [
            f"{journey.example.reference}: no mail about {stage} to {address}."
            for journey in journeys
            for stage in WAYS.get(journey.status or "", ())
            for address in [journey.example.order["customer"]["email"]]
            if (f"{journey.id}.{stage}", address) not in there
        ]

    def by_stage(self) -> Mapping[str, int]:
        """How many mails there are about each stage."""
        self._look()
        return Counter(message.partition(".")[2] for message, _ in self._read.values())

    def _look(self) -> None:
        for path in self._folder.glob("*.eml"):
            if path not in self._read:
                with path.open("rb") as file:
                    headers = BytesHeaderParser(policy=default).parse(file)
                # <order.STAGE@domain>: the same for every copy of a mail
                message = str(headers["Message-ID"]).strip("<> ").partition("@")[0]
                [recipient] = headers["To"].addresses
                self._read[path] = (message, recipient.addr_spec)
