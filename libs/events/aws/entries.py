"""Entries: messages as SNS and SQS take them, text within their limits.

https://docs.aws.amazon.com/sns/latest/api/API_PublishBatch.html: at most ten messages and 256 KiB a request,
attributes included. https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html:
the characters of XML and no others.
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
"""What JSON may hold as it is and XML may not, and how JSON says it otherwise; only strings can hold it."""
_raw_batch: Final = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One message of a request."""

    text: str
    attributes: dict[str, str]
    size: int
    """Bytes, attributes included."""


def entries_of(message: Message) -> list[Entry]:
    """The message as one entry, or, if it has grown too large by being written otherwise, as several.

    Raises UnicodeDecodeError for a body that is not text; ours all are.
    """
    return list(_entries(message.type, message.body, len(message.event_ids)))


def requests_of(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """The entries, as many together as may go into one request."""
    start, size = 0, 0
    for index, entry in enumerate(entries):
        if index > start and (index - start == MAX_ENTRIES or size + entry.size > MAX_BYTES):
            yield entries[start:index]
            start, size = index, 0
        size += entry.size
    if start < len(entries):
        yield entries[start:]


def as_attributes(attributes: Mapping[str, str]) -> dict[str, Any]:
    """A message's attributes as SNS and SQS take them, whose types differ in name alone."""
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
