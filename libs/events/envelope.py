"""CloudEvents 1.0 in the JSON batch format: how events become messages and messages become events.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md#4-json-batch-format
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5
from zlib import crc32

import msgspec
from uuid_utils.compat import uuid7

from events.bus import Message
from events.contracts import EVENTS, TYPES, VERSION, AnyEvent, schema_of, type_of
from events.errors import Undecodable
from events.text import storable

CONTENT_TYPE: Final = "application/cloudevents-batch+json"
MAX_EVENTS: Final = 100
"""A message closes at this many events."""
MAX_BYTES: Final = 192 * 1024
"""A message closes before its body grows over this size."""
MAX_READ_BYTES: Final = 1024 * 1024
"""A body larger than this is not read."""

UNDECODABLE: Final = "undecodable"
"""The code of a whole message that is no CloudEvents batch."""
FOR_NEWER_VERSION: Final = ("unknown_type", "unsupported_version", "no_handler")
"""The codes of what a process of a newer version may handle."""

_encoder = msgspec.json.Encoder()
_batch = msgspec.json.Decoder(list[AnyEvent])
_one = msgspec.json.Decoder(AnyEvent)
_raw_batch = msgspec.json.Decoder(list[msgspec.Raw])
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for JSON that is malformed, not UTF-8, or nested deeper than anybody would."""
_SCHEMAS: Final = {event: schema_of(event) for event in EVENTS}
_SCHEMA: Final = re.compile(r"urn:orderflow:([A-Z_]{1,64}):([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Rejected:
    """An event in a readable message that can't be handled: unknown, malformed, or not for this reader."""

    id: UUID
    """The event's own id; where it has none, one made from its bytes, the same each time."""
    type: str
    body: bytes
    code: str
    message: str
    for_newer_version: bool = False
    """A process of a newer version may handle it: this code does not know its type or version."""
    order_id: UUID | None = None
    """The order that it is about, where that is certain."""


class _Attributes(msgspec.Struct):
    """What can be said of an event that is not one of ours."""

    id: UUID | None = None
    type: str = "unknown"
    specversion: Any = None
    subject: Any = None
    dataschema: Any = None

    def order_id(self) -> UUID | None:
        """The order that it is about, if it names one."""
        try:
            return UUID(self.subject)
        except (ValueError, AttributeError, TypeError):
            return None

    def unknown_code(self) -> str | None:
        """Why only a newer version of the code could read it; None where no version could."""
        schema = _SCHEMA.fullmatch(self.dataschema) if isinstance(self.dataschema, str) else None
        if self.specversion != "1.0" or not self.id or not schema or schema[1] != self.type:
            return None
        if self.type not in TYPES:
            return "unknown_type"
        return "unsupported_version" if int(schema[2]) > VERSION else None


def encode_one(event: AnyEvent) -> bytes:
    """One event as a JSON object."""
    return _encoder.encode(event)


def messages(events: Iterable[AnyEvent]) -> list[Message]:
    """The events as messages: those of one type together, each message within MAX_EVENTS and MAX_BYTES."""
    by_type: dict[type[AnyEvent], list[AnyEvent]] = {}
    for event in events:
        by_type.setdefault(type(event), []).append(event)
    closed: list[Message] = []
    for event_type, siblings in by_type.items():
        start, size = 0, 2
        encoded = [_encoder.encode(event) for event in siblings]
        for index, part in enumerate(encoded):
            if index > start and (index - start == MAX_EVENTS or size + len(part) + 1 > MAX_BYTES):
                closed.append(_message(event_type, siblings[start:index], encoded[start:index]))
                start, size = index, 2
            size += len(part) + 1
        closed.append(_message(event_type, siblings[start:], encoded[start:]))
    return closed


def decode(body: bytes) -> tuple[list[AnyEvent], list[Rejected]]:
    """The events of a message, and those in it that can't be handled.

    Fields that are not known are ignored. Raises Undecodable when the body is not a JSON array at all.
    """
    if len(body) > MAX_READ_BYTES:
        raise Undecodable(f"The message has {len(body)} bytes; the limit is {MAX_READ_BYTES}.")
    try:
        events = _batch.decode(body)
        rejected: list[Rejected] = []
    except _UNREADABLE:
        events, rejected = _decode_each(body)
    for event in events:
        if event.dataschema != _SCHEMAS[type(event)] or event.subject != event.data.order.id:
            return _split_misfits(events, rejected)
    return events, rejected


def digests(body: bytes) -> list[int]:
    """CRC-32 of the bytes of each event in a body that `decode` could read, to tell payloads apart."""
    return [crc32(raw) for raw in _raw_batch.decode(body)]


def _message(event_type: type[AnyEvent], events: Sequence[AnyEvent], encoded: Sequence[bytes]) -> Message:
    return Message(
        id=uuid7(),
        type=type_of(event_type),
        body=b"[" + b",".join(encoded) + b"]",
        event_ids=tuple(event.id for event in events),
        order_ids=tuple(event.subject for event in events),
    )


def _decode_each(body: bytes) -> tuple[list[AnyEvent], list[Rejected]]:
    """The slow way, for a message with something bad in it: each event on its own."""
    try:
        raws = _raw_batch.decode(body)
    except _UNREADABLE as error:
        raise Undecodable(f"The message is not a CloudEvents batch: {error}") from error
    events: list[AnyEvent] = []
    rejected: list[Rejected] = []
    for raw in raws:
        try:
            events.append(_one.decode(raw))
        except _UNREADABLE as error:
            rejected.append(_rejected(bytes(raw), "invalid_event", str(error)))
    return events, rejected


def _split_misfits(
    events: Sequence[AnyEvent], rejected: list[Rejected]
) -> tuple[list[AnyEvent], list[Rejected]]:
    good: list[AnyEvent] = []
    for event in events:
        if event.dataschema != _SCHEMAS[type(event)]:
            message = f"Read as {_SCHEMAS[type(event)]}, but it is {event.dataschema}."
            rejected.append(_rejected(_encoder.encode(event), "unsupported_version", message))
        elif event.subject != event.data.order.id:
            message = "The subject is not the id of the order in the data."
            rejected.append(_rejected(_encoder.encode(event), "subject_mismatch", message))
        else:
            good.append(event)
    return good, rejected


def _rejected(raw: bytes, code: str, message: str) -> Rejected:
    try:
        attributes = msgspec.json.decode(raw, type=_Attributes)
    except _UNREADABLE:
        attributes = _Attributes()
    unknown = attributes.unknown_code()
    return Rejected(
        id=attributes.id or _id_made_from(raw),
        type=storable(attributes.type, 64),
        body=raw,
        code=unknown or code,
        message=storable(message, 1000),
        for_newer_version=unknown is not None,
        order_id=attributes.order_id() if unknown else None,
    )


def _id_made_from(body: bytes) -> UUID:
    return uuid5(NAMESPACE_URL, body.decode("utf-8", "backslashreplace"))


def undecodable(body: bytes, event_type: str, message: str) -> Rejected:
    """A whole message that could not be decoded, to be kept as it is."""
    return Rejected(
        id=_id_made_from(body),
        type=storable(event_type, 64),
        body=body,
        code=UNDECODABLE,
        message=storable(message, 1000),
    )


def rejected_without_handler(event: AnyEvent, service: str) -> Rejected:
    """An event that reached a service whose handler table does not name it: that of a newer version may."""
    return Rejected(
        id=event.id,
        type=type_of(type(event)),
        body=_encoder.encode(event),
        code="no_handler",
        message=f"The {service} service has no handler for {type_of(type(event))}.",
        for_newer_version=True,
        order_id=event.subject,
    )
