"""Events become messages and messages become events, as CloudEvents 1.0 specifies."""

import json
from datetime import datetime
from typing import Any

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from events import contracts, envelope
from events.contracts import AnyEvent, Customer, type_of
from events.errors import Undecodable
from tests.factories import an_item, an_order, one_of_each, order_created

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


LARGEST_REQUEST = 64 * 1024


def request_of(order: contracts.Order) -> bytes:
    """The request that places the order, written as briefly as JSON can."""
    items = [
        {
            "sku": item.sku,
            "name": item.name,
            "quantity": item.quantity,
            "unit_price": "0",
            "tax_rate": item.tax_rate,
        }
        for item in order.items
    ]
    body = {
        "reference": order.reference,
        "customer": {"name": order.customer.name, "email": order.customer.email},
        "shipping_address": {"line1": order.shipping_address.line1},
        "items": items,
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


@pytest.mark.parametrize("character", ["a", "é", "漢", "😀", '"', "\\", "\b", "\x7f", "\u2028"])
def test_the_largest_legal_order_fits_in_a_message_at_every_stage(character: str) -> None:
    """100 items, every field as long as it may be, or as long as fits in a request of 64 KiB."""
    for length in range(200, 0, -1):
        item = an_item(
            sku=character * min(length, 64),
            name=character * length,
            tax_rate="0.123456",
            quantity=100_000,
            unit_price=99_999_999_999,
        )
        order = an_order(
            items=(item,) * 100,
            reference=character * 200,
            customer=Customer(name=character * 200, email="e" * 242 + "@example.com"),
        )
        if len(request_of(order)) <= LARGEST_REQUEST:
            break
    else:
        pytest.fail("no length fits")
    for event in one_of_each(order).values():
        assert len(body_of(event)) <= envelope.MAX_BYTES


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


def test_a_rejected_event_without_an_id_gets_the_same_id_each_time() -> None:
    body = b'[{"type":"ORDER_CREATED"},{"type":"ORDER_CREATED","a":1}]'
    first, second = envelope.decode(body)[1]
    assert [first.id, second.id] == [each.id for each in envelope.decode(body)[1]]
    assert first.id != second.id


def test_a_body_over_one_mebibyte_is_not_read() -> None:
    with pytest.raises(Undecodable, match="1048577 bytes"):
        envelope.decode(b"x" * (envelope.MAX_READ_BYTES + 1))
