"""Events become messages and messages become events, as CloudEvents 1.0 specifies."""

import json
from bisect import bisect
from datetime import datetime
from functools import cache
from typing import Any

import msgspec
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chassis.body import MAX_BYTES as MAX_REQUEST_BYTES
from events import contracts, envelope
from events.contracts import EVENTS, AboutOrder, AnyEvent, Event, Order, schema_of, type_of
from events.errors import Undecodable
from events.life import LATER_EVENTS
from tests.factories import CARD, a_free_order, an_item, an_order, one_of_each, order_created
from tests.largest import largest

EVERY = one_of_each()


def body_of(event: AnyEvent) -> bytes:
    """The body of the one message that the event makes."""
    [message] = envelope.messages([event])
    return message.body


def test_an_encoded_event_decodes_to_the_same_event() -> None:
    for event in EVERY.values():
        assert envelope.decode(body_of(event)) == ([event], [])


@pytest.mark.parametrize("event", EVERY.values(), ids=EVERY)
def test_the_cloudevents_sdk_reads_what_we_write(event: contracts.AnyEvent) -> None:
    [message] = envelope.messages([event])
    [written] = json.loads(message.body)
    read = JSONFormat().read(CloudEvent, json.dumps(written))
    assert read.get_specversion() == "1.0"
    assert read.get_id() == str(event.id)
    assert read.get_type() == type_of(type(event))
    assert read.get_source() == event.source
    assert read.get_subject() == str(event.subject)
    assert read.get_time() == event.time
    assert read.get_dataschema() == event.dataschema
    data = read.get_data()
    assert isinstance(data, dict)
    assert data["status"] == read.get_type()
    assert data["order"]["id"] == str(event.subject)


@pytest.mark.parametrize("event", EVERY.values(), ids=EVERY)
def test_we_read_what_the_cloudevents_sdk_writes(event: contracts.AnyEvent) -> None:
    ours: dict[str, Any] = json.loads(envelope.encode_one(event))
    data = ours.pop("data")
    ours["time"] = datetime.fromisoformat(ours["time"])
    theirs = CloudEvent(ours | {"datacontenttype": "application/json", "traceparent": "00-0-0-00"}, data)
    assert envelope.decode(b"[" + JSONFormat().write(theirs) + b"]") == ([event], [])


def test_unknown_fields_are_ignored_wherever_they_are() -> None:
    event = order_created()
    decorated = json.loads(envelope.encode_one(event))
    order = decorated["data"]["order"]
    for part in (decorated, decorated["data"], order, order["items"][0]):
        part["colour"] = {"deep": ["blue"]}
    assert envelope.decode(json.dumps([decorated]).encode()) == ([event], [])


def test_a_message_holds_the_events_of_one_type_and_says_which() -> None:
    events = [order_created(), EVERY["SHIPPED"], order_created()]
    created, shipped = envelope.messages(events)
    assert (created.type, shipped.type) == ("ORDER_CREATED", "SHIPPED")
    assert created.event_ids == (events[0].id, events[2].id)
    assert created.order_ids == (events[0].subject, events[2].subject)
    assert created.id < shipped.id
    assert envelope.decode(created.body)[0] == [events[0], events[2]]


def test_a_message_closes_at_100_events() -> None:
    events = [order_created() for _ in range(201)]
    messages = envelope.messages(events)
    assert [len(message.event_ids) for message in messages] == [100, 100, 1]
    assert [event for message in messages for event in envelope.decode(message.body)[0]] == events


def test_a_message_closes_before_it_grows_over_its_size() -> None:
    large = an_order(items=tuple(an_item(name="n" * 200) for _ in range(100)))
    messages = envelope.messages([order_created(large) for _ in range(20)])
    assert all(len(message.body) <= envelope.MAX_BYTES for message in messages)
    assert all(len(message.event_ids) > 1 for message in messages[:-1])
    assert sum(len(message.event_ids) for message in messages) == 20


CHARACTERS = ("a", "é", "漢", "😀", '"', "\\", "\b", "\x7f", "\u2028")
COMPUTED = ("created_at", "key_hash", "tax_category", "subtotal", "tax", "total", "order_discount")
"""Fields of an order that a request need not have."""


def request_of(order: Order) -> bytes:
    """A request that is not longer than the shortest that places the order."""
    body = msgspec.to_builtins(order)
    del body["id"]
    for part in (body, body["shipping"], *body["items"]):
        for name in COMPUTED:
            part.pop(name, None)
        part.get("discount", {}).pop("amount", None)
    body["shipping"]["price"] = "0"
    for item in body["items"]:
        del item["quantity_decimals"], item["unit_price_decimals"]
        item |= {"quantity": 1, "unit_price": "0"}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


@cache
def largest_order(character: str) -> Order:
    """100 lines, every field there, all texts as long as the contracts and a request of 64 KiB allow."""

    def order(length: int) -> Order:
        return replace(largest(Order, character, longest=length), payment_method=None)

    longest = (
        bisect(range(500), MAX_REQUEST_BYTES, lo=1, key=lambda length: len(request_of(order(length)))) - 1
    )
    assert longest, "no length fits"
    return order(longest)


@pytest.mark.parametrize("event_type", (*EVENTS, *LATER_EVENTS), ids=type_of)
def test_the_largest_legal_order_fits_in_a_message_of_every_type(event_type: type[Event[AboutOrder]]) -> None:
    for character in CHARACTERS:
        event = largest(event_type, character)
        event = replace(event, data=replace(event.data, order=largest_order(character)))
        assert len(event.data.order.items) == 100
        assert len(msgspec.json.encode([event])) <= envelope.MAX_BYTES


@given(st.binary(max_size=400))
def test_any_bytes_are_either_a_batch_or_undecodable(body: bytes) -> None:
    try:
        envelope.decode(body)
    except Undecodable:
        return


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.lists(st.dictionaries(st.sampled_from(["id", "type", "data", "time", "subject"]), JSON), max_size=3)
)
def test_any_item_of_a_batch_is_rejected_with_a_reason_that_postgres_can_store(batch: list[Any]) -> None:
    body = json.dumps(batch).encode()
    try:
        events, rejected = envelope.decode(body)
    except Undecodable:  # lone surrogates, and numbers that JSON does not have
        return
    assert not events
    assert len(rejected) == len(batch)
    for each in rejected:
        assert each.code
        assert "\0" not in each.type + each.message
        assert len(each.type) <= 64
        (each.type + each.message).encode()


def of_version(event: AnyEvent, version: int) -> bytes:
    """The event's bytes, declared to be of this version."""
    now, then = schema_of(type(event)), schema_of(type(event), version)
    return envelope.encode_one(event).replace(now.encode(), then.encode())


def test_an_event_of_version_1_is_read_as_one_of_version_2() -> None:
    event = order_created()
    older = json.loads(of_version(event, 1))
    older["data"]["order"]["payment_method"] = older["data"].pop("payment_method")
    [read], rejected = envelope.decode(json.dumps([older]).encode())
    assert read == event
    assert not rejected
    assert read.data.payment_method == CARD
    assert read.data.order.payment_method is None


def test_events_of_both_versions_are_read_from_one_message_in_their_order() -> None:
    events = [order_created() for _ in range(3)]
    bodies = [of_version(event, version) for event, version in zip(events, (2, 1, 2), strict=True)]
    assert envelope.decode(b"[" + b",".join(bodies) + b"]") == (events, [])


@pytest.mark.parametrize("event", EVERY.values(), ids=EVERY)
def test_an_event_of_version_3_waits_for_a_newer_process_with_its_own_bytes(event: AnyEvent) -> None:
    newer = of_version(event, 3).replace(b'"data":{', b'"data":{"news":{"a": 1},')
    good = order_created()
    events, [rejected] = envelope.decode(b"[" + newer + b"," + envelope.encode_one(good) + b"]")
    assert events == [good]
    assert (rejected.code, rejected.for_newer_version) == ("unsupported_version", True)
    assert rejected.body == newer


def test_a_rejected_event_keeps_its_own_bytes() -> None:
    strange = envelope.encode_one(order_created()).replace(b'"data":{', b'"data":{"news":{"a": 1},')
    for_another = strange.replace(b'"subject":"0', b'"subject":"f')
    [rejected] = envelope.decode(b"[" + for_another + b"]")[1]
    assert (rejected.code, rejected.body) == ("subject_mismatch", for_another)


@pytest.mark.parametrize("version", [1, 2])
def test_an_event_without_the_payment_method_that_its_total_needs_is_rejected(version: int) -> None:
    body = of_version(order_created(), version).replace(b',"payment_method":"pm_card_visa"', b"")
    assert b"payment_method" not in body
    [rejected] = envelope.decode(b"[" + body + b"]")[1]
    assert (rejected.code, rejected.for_newer_version) == ("invalid_event", False)
    assert "needs a payment method" in rejected.message


def test_a_free_order_needs_no_payment_method() -> None:
    event = order_created(a_free_order(), payment_method=None)
    assert envelope.decode(body_of(event)) == ([event], [])


def test_a_rejected_event_without_an_id_gets_the_same_id_each_time() -> None:
    body = b'[{"type":"ORDER_CREATED"},{"type":"ORDER_CREATED","a":1}]'
    first, second = envelope.decode(body)[1]
    assert [first.id, second.id] == [each.id for each in envelope.decode(body)[1]]
    assert first.id != second.id


def test_a_body_over_one_mebibyte_is_not_read() -> None:
    with pytest.raises(Undecodable, match="1048577 bytes"):
        envelope.decode(b"x" * (envelope.MAX_READ_BYTES + 1))
