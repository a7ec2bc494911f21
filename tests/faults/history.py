"""The clients' history: one line for each request and each answer, independent of the system's records.

A request is recorded before it is sent, and its answer when it arrives. Without a definite answer (timeout,
reset, 5xx, 409) the outcome is recorded as `unknown`, and the client sends the request again. A legal order
that is refused is treated the same: the previous version does not know all that an order can say.
"""

import json
import time
from dataclasses import dataclass, field
from hashlib import sha256
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final


def _members(names: str, **inner: Any) -> dict[str, Any]:
    return dict.fromkeys(names.split()) | inner


_SHARED: Final = _members(
    "id reference status reason waiting created_at currency subtotal tax total invoice payment shipment",
    items=_members("sku name quantity unit_price tax_rate total"),
    customer=_members("name email locale"),
    shipping_address=_members("line1 line2 city state postal_code country"),
    timeline=_members("type time event_id"),
)
"""The members that the previous version answers too; it may repeat an answer of this one."""


@dataclass
class Key:
    """What clients saw of one idempotency key."""

    expected: str
    """The status at which its order must end."""
    email: str
    answers: set[tuple[str, str]] = field(default_factory=set)
    """Order id and digest of each distinct 201."""
    total: str = ""
    refused: int = 0
    """The number of 422s: another body was sent under the same key."""
    unknown: int = 0


class History:
    """Writes the lines, and keeps in memory what the checks need."""

    def __init__(self, file: Path) -> None:
        self.keys: dict[str, Key] = {}
        self.requests = 0
        self.unknown = 0
        self.accepted = 0
        """Keys that were answered with 201."""
        self._file: TextIOWrapper = file.open("w", encoding="utf-8", buffering=1 << 16)

    def sent(self, key: str, expected: str, email: str) -> None:
        """Records a request that is about to be sent."""
        self.keys.setdefault(key, Key(expected, email))
        self.requests += 1
        self._write("sent", key)

    def answered(self, key: str, status: int, body: bytes) -> None:
        """Records a definite answer."""
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
        """Records that no answer came, or one that leaves the outcome unknown."""
        self.keys[key].unknown += 1
        self.unknown += 1
        self._write("unknown", key, why=why)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, kind: str, key: str, **more: Any) -> None:
        self._file.write(json.dumps({"at": round(time.time(), 3), "what": kind, "key": key, **more}) + "\n")


def _digest(document: dict[str, Any]) -> str:
    """A digest of what both versions answer, without the members that are null: versions differ in them."""
    return sha256(json.dumps(_shared(document, _SHARED)).encode()).hexdigest()[:16]


def _shared(answer: Any, members: Any) -> Any:
    if isinstance(answer, list):
        return [_shared(each, members) for each in answer]
    if not isinstance(answer, dict):
        return answer
    return {name: _shared(answer[name], members[name]) for name in members if answer.get(name) is not None}
