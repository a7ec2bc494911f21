"""Messages as SNS and SQS take them: how many together, how large, which characters."""

import msgspec
from uuid_utils.compat import uuid7

from events import envelope
from events.aws.entries import MAX_BYTES, MAX_ENTRIES, Entry, entries_of, requests_of
from events.bus import Message
from tests.factories import an_order, order_created


def an_entry(size: int) -> Entry:
    return Entry("", {}, size)


def test_at_most_ten_go_into_one_request() -> None:
    requests = list(requests_of([an_entry(10)] * 23))
    assert [len(request) for request in requests] == [MAX_ENTRIES, MAX_ENTRIES, 3]


def test_at_most_256_kib_go_into_one_request_and_none_is_left_out() -> None:
    entries = [an_entry(size * 1024) for size in (192, 64, 1, 192, 192, 256)]
    requests = list(requests_of(entries))
    assert [[entry.size // 1024 for entry in request] for request in requests] == [
        [192, 64],
        [1, 192],
        [192],
        [256],
    ]
    assert not list(requests_of([]))


def test_attributes_count() -> None:
    [message] = envelope.messages([order_created()])
    [entry] = entries_of(message)
    assert entry.text.encode() == message.body
    assert entry.attributes["type"] == "ORDER_CREATED"
    assert entry.size > len(message.body) + sum(len(n) + len(v) for n, v in entry.attributes.items())


def test_characters_that_sqs_refuses_still_arrive() -> None:
    """https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html."""
    name = "noncharacters \ufffe \uffff, a control \x01, an emoji \U0001f980"
    event = order_created(an_order(reference=name))
    [message] = envelope.messages([event])
    [entry] = entries_of(message)
    assert not {"\ufffe", "\uffff", "\x01"} & set(entry.text)
    assert envelope.decode(entry.text.encode()) == ([event], [])


def test_a_message_that_grows_too_large_goes_in_several_parcels() -> None:
    events = ["\uffff" * 30_000, "\ufffe" * 30_000, "plain"]
    body = msgspec.json.encode(events)
    assert len(body) < envelope.MAX_BYTES
    ids = tuple(uuid7() for _ in events)
    entries = entries_of(Message(uuid7(), "ORDER_CREATED", body, ids, ids))
    assert [event for entry in entries for event in msgspec.json.decode(entry.text)] == events
    assert all(entry.size <= MAX_BYTES for entry in entries)
    assert [entry.attributes["count"] for entry in entries] == ["1", "2"]
