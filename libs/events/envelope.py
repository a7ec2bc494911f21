"""CloudEvents 1.0 in the JSON batch format: encodes events as messages, and decodes messages.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md#4-json-batch-format
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5
from zlib import crc32

import msgspec
from msgspec.structs import replace
from uuid_utils.compat import uuid7

from events.bus import Message
from events.contracts import EVENTS, READABLE_VERSIONS, TYPES, VERSION, AnyEvent, schema_of, type_of
from events.errors import Undecodable
from events.text import storable

CONTENT_TYPE: Final = "application/cloudevents-batch+json"
MAX_EVENTS: Final = 100
"""Most events in a message."""
MAX_BYTES: Final = 192 * 1024
"""Most bytes in the body of a message with several events."""
MAX_READ_BYTES: Final = 1024 * 1024
"""A larger body is not decoded."""

UNDECODABLE: Final = "undecodable"
"""The code of a message that is not a CloudEvents batch."""
FOR_NEWER_VERSION: Final = ("unknown_type", "unsupported_version", "no_handler")
"""The codes of events that a process of a newer version may be able to handle."""

_encoder = msgspec.json.Encoder()
_batch = msgspec.json.Decoder(list[AnyEvent])
_one = msgspec.json.Decoder(AnyEvent)
_raw_batch = msgspec.json.Decoder(list[msgspec.Raw])
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Raised by msgspec for JSON that is malformed, not UTF-8, or nested too deeply."""
_SCHEMAS: Final = {event: schema_of(event) for event in EVENTS}
_OLDER_SCHEMAS: Final = {
    event: frozenset(schema_of(event, version) for version in READABLE_VERSIONS if version != VERSION)
    for event in EVENTS
}
_SCHEMA: Final = re.compile(r"urn:orderflow:([A-Z_]{1,64}):([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Rejected:
    """An event that this service can't handle: unknown, malformed, or without a handler."""

    id: UUID
    """The event's id; if it has none, an id derived from its bytes."""
    type: str
    body: bytes
    code: str
    message: str
    for_newer_version: bool = False
    """Whether a newer version may handle it: its type or version is unknown here."""
    order_id: UUID | None = None
    """The order, if it is certain."""


class _Attributes(msgspec.Struct):
    """The attributes of an event that could not be decoded."""

    id: UUID | None = None
    type: str = "unknown"
    specversion: Any = None
    subject: Any = None
    dataschema: Any = None

    def order_id(self) -> UUID | None:
        """The subject as an order's id, if it is one."""
        try:
            return UUID(self.subject)
        except (ValueError, AttributeError, TypeError):
            return None

    def unknown_code(self) -> str | None:
        """Why only a newer version can read it; None if no version can."""
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
    """Groups the events by type into messages of at most MAX_EVENTS and MAX_BYTES."""
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
    """The events of a message, and those that were rejected.

    Unknown fields are ignored. An event of an older version becomes one of VERSION, also in its `dataschema`:
    encoded again it is what it says. Rejected events keep their bytes. Raises Undecodable when the body is
    not a JSON array, or too large.
    """
    if len(body) > MAX_READ_BYTES:
        raise Undecodable(f"The message has {len(body)} bytes; the limit is {MAX_READ_BYTES}.")
    try:
        events = _batch.decode(body)
    except _UNREADABLE:
        return _decode_each(body)
    for event in events:
        if event.dataschema != _SCHEMAS[type(event)] or event.subject != event.data.order.id:
            return _decode_each(body)
    return events, []


def digests(body: bytes) -> list[int]:
    """CRC-32 of each event's bytes, to tell payloads apart. `decode` must have accepted the body."""
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
    """Decodes each event separately, for a message in which one is malformed or not of this version."""
    try:
        raws = _raw_batch.decode(body)
    except _UNREADABLE as error:
        raise Undecodable(f"The message is not a CloudEvents batch: {error}") from error
    events: list[AnyEvent] = []
    rejected: list[Rejected] = []
    for raw in raws:
        try:
            event = _one.decode(raw)
        except _UNREADABLE as error:
            rejected.append(_rejected(bytes(raw), "invalid_event", str(error)))
            continue
        if event.dataschema in _OLDER_SCHEMAS[type(event)]:
            event = replace(event, dataschema=_SCHEMAS[type(event)])
        if event.dataschema != _SCHEMAS[type(event)]:
            message = f"Read as {_SCHEMAS[type(event)]}, but it is {event.dataschema}."
            rejected.append(_rejected(bytes(raw), "unsupported_version", message))
        elif event.subject != event.data.order.id:
            message = "The subject is not the id of the order in the data."
            rejected.append(_rejected(bytes(raw), "subject_mismatch", message))
        else:
            events.append(event)
    return events, rejected


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
    """A message that could not be decoded, as one rejected event with the whole body."""
    return Rejected(
        id=_id_made_from(body),
        type=storable(event_type, 64),
        body=body,
        code=UNDECODABLE,
        message=storable(message, 1000),
    )


def rejected_without_handler(event: AnyEvent, service: str) -> Rejected:
    """An event whose type this version of the service does not listen to; a newer version may."""
    return Rejected(
        id=event.id,
        type=type_of(type(event)),
        body=_encoder.encode(event),
        code="no_handler",
        message=f"The {service} service has no handler for {type_of(type(event))}.",
        for_newer_version=True,
        order_id=event.subject,
    )
