"""The history: what the clients saw, a line per event of theirs; it knows nothing of the system.

A request is written down before it is sent. Its answer is written down when it is there, and `unknown` when
none came (timeout, reset, 5xx, 409): then nobody knows what became of it, and it is asked again.
"""

import json
import time
from dataclasses import dataclass, field
from hashlib import sha256
from io import TextIOWrapper
from pathlib import Path
from typing import Any


@dataclass
class Key:
    """All that clients saw of one idempotency key."""

    expected: str
    """How its order is to end."""
    email: str
    answers: set[tuple[str, str]] = field(default_factory=set)
    """Order ids and hashes of bodies of its 201s. A newer version may add members that are null."""
    total: str = ""
    refused: int = 0
    """422s: for another body under the same key."""
    unknown: int = 0


class History:
    """Writes the lines, and keeps what the checks need in memory."""

    def __init__(self, file: Path) -> None:
        self.keys: dict[str, Key] = {}
        self.requests = 0
        self.unknown = 0
        self.accepted = 0
        """Keys that were answered with 201."""
        self._file: TextIOWrapper = file.open("w", encoding="utf-8", buffering=1 << 16)

    def sent(self, key: str, expected: str, email: str) -> None:
        """A request is about to be sent."""
        self.keys.setdefault(key, Key(expected, email))
        self.requests += 1
        self._write("sent", key)

    def answered(self, key: str, status: int, body: bytes) -> None:
        """An answer that is definite."""
        seen = self.keys[key]
        order_id = None
        if status == 201:
            document = json.loads(body)
            order_id = document["id"]
            if not seen.answers:
                self.accepted += 1
                seen.total = f"{document['total']} {document['currency']}"
            seen.answers.add((order_id, _digest(document)))
        else:
            seen.refused += 1
        self._write("answered", key, status=status, order=order_id)

    def unanswered(self, key: str, why: str) -> None:
        """No answer, or one that says nothing of the outcome."""
        self.keys[key].unknown += 1
        self.unknown += 1
        self._write("unknown", key, why=why)

    def close(self) -> None:
        """Nothing is written any more."""
        self._file.close()

    def _write(self, what: str, key: str, **more: Any) -> None:
        self._file.write(json.dumps({"at": round(time.time(), 3), "what": what, "key": key, **more}) + "\n")


def _digest(document: dict[str, Any]) -> str:
    """Of what the answer says: one more member that is null says nothing more."""
    said = json.dumps({name: value for name, value in document.items() if value is not None})
    return sha256(said.encode()).hexdigest()[:16]
