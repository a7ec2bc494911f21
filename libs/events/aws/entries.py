"""Entries: messages in the form of SNS and SQS, within their limits.

https://docs.aws.amazon.com/sns/latest/api/API_PublishBatch.html: at most ten messages and 256 KiB a request,
attributes included. https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html:
only characters that XML allows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from events.bus import Message
from events.envelope import CONTENT_TYPE

MAX_ENTRIES: Final = 10
"""Most messages in a request."""
MAX_BYTES: Final = 256 * 1024
"""Most bytes in a request, and in a message."""

_NO_XML: Final = {b"\xef\xbf\xbe": rb"\ufffe", b"\xef\xbf\xbf": rb"\uffff"}
"""Characters that XML forbids, with their JSON escapes. In JSON they occur only in strings."""
_raw_batch: Final = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One message of a request."""

    text: str
    attributes: dict[str, str]
    size: int
    """Bytes, attributes included."""


def entries_of(message: Message) -> list[Entry]:
    """The message as one entry, or as several if escapes make it too large for one.

    Raises UnicodeDecodeError for a body that is not text; ours always is.
    """
    return list(_entries(message.type, message.body, len(message.event_ids)))


def requests_of(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Groups the entries into requests, as many in each as the limits allow."""
    start, size = 0, 0
    for index, entry in enumerate(entries):
        if index > start and (index - start == MAX_ENTRIES or size + entry.size > MAX_BYTES):
            yield entries[start:index]
            start, size = index, 0
        size += entry.size
    if start < len(entries):
        yield entries[start:]


def as_attributes(attributes: Mapping[str, str]) -> dict[str, Any]:
    """A message's attributes in the form of SNS and SQS, whose types differ only in name."""
    return {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}


def _entries(event_type: str, body: bytes, count: int) -> Iterator[Entry]:
    for character, escape in _NO_XML.items():
        body = body.replace(character, escape)
    attributes = {"type": event_type, "count": str(count), "content-type": CONTENT_TYPE}
    size = len(body) + sum(len(name) + len("String") + len(value) for name, value in attributes.items())
    if size > MAX_BYTES and len(events := _raw_batch.decode(body)) > 1:
        middle = len(events) // 2
        for half in (events[:middle], events[middle:]):
            yield from _entries(event_type, b"[" + b",".join(map(bytes, half)) + b"]", len(half))
    else:
        yield Entry(body.decode(), attributes, size)
