"""Events and rows of version 1 keep their meaning, and events of version 2 do not change unnoticed."""

import json
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from events import envelope
from events.contracts import (
    EVENTS,
    TYPES,
    AboutOrder,
    AnyMilestone,
    Invoiced,
    Order,
    OrderCreated,
    Paid,
    Undeliverable,
    type_of,
)
from events.life import LATER_EVENTS
from services.order.domain import Facts
from services.order.requests import NewOrder
from tests.factories import one_of_each
from tests.samples import ROWS_OF_VERSION_1, VERSION_1, VERSION_2, indented, present

Json = dict[str, Any]

CARD = "pm_card_visa"
FINGERPRINT_OF_VERSION_1 = "8547406b59672bb9396122b1a99579326535c0c436783a80738787d63daca53d"
"""The fingerprint of version 1's request, as the last process of version 1 made it."""


def event_of_version_1(event_type: str) -> Json:
    [event] = json.loads((VERSION_1 / f"{event_type}.json").read_bytes())
    assert isinstance(event, dict)
    return event


def row_of_version_1(name: str) -> bytes:
    return (ROWS_OF_VERSION_1 / f"{name}.json").read_bytes()


def without_token(data: Json) -> Json:
    """The data of an event of version 1 as an event of version 2 has it, after the payment was tried."""
    assert data["order"].pop("payment_method") == CARD
    return data


@pytest.mark.parametrize("event_type", TYPES)
def test_an_event_of_version_1_becomes_one_of_version_2_with_the_same_facts(event_type: str) -> None:
    [event], rejected = envelope.decode((VERSION_1 / f"{event_type}.json").read_bytes())
    expected = event_of_version_1(event_type)
    without_token(expected["data"])
    if event_type in ("ORDER_CREATED", "INVOICE_CREATED"):
        expected["data"]["payment_method"] = CARD
    expected["dataschema"] = f"urn:orderflow:{event_type}:2"
    assert json.loads(envelope.encode_one(event)) == expected
    assert not rejected


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("billing.payments.snapshot", Invoiced),
        ("billing.refunds.snapshot", Undeliverable),
        ("shipment.shipments.paid", Paid),
    ],
)
def test_the_data_in_a_row_of_version_1_loses_nothing_but_the_token(row: str, kind: type[AboutOrder]) -> None:
    data = msgspec.json.decode(row_of_version_1(row), type=kind)
    expected = without_token(json.loads(row_of_version_1(row)))
    if kind is Invoiced:
        expected["payment_method"] = CARD
    assert json.loads(msgspec.json.encode(data)) == expected


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("order.orders.snapshot", Order),
        ("invoice.invoices.snapshot", Order),
        ("order.timeline.facts", Facts),
        ("order.delays.facts", Facts),
    ],
)
def test_an_order_or_fact_in_a_row_of_version_1_is_read_whole(row: str, kind: type[Order | Facts]) -> None:
    read = msgspec.json.decode(row_of_version_1(row), type=kind)
    assert json.loads(msgspec.json.encode(read)) == json.loads(row_of_version_1(row))


def test_a_mail_of_version_1_is_read() -> None:
    event = msgspec.json.decode(row_of_version_1("email.mails.event"), type=AnyMilestone)
    assert isinstance(event, OrderCreated)
    assert (event.data.order.total, event.data.payment_method) == (9663, CARD)


def test_an_order_of_version_1_is_never_published_with_its_token() -> None:
    order = msgspec.json.decode(row_of_version_1("order.orders.snapshot"), type=Order)
    for event in one_of_each(order).values():
        assert b"payment_method" not in msgspec.json.encode(event.data.order)


def test_a_request_of_version_1_has_the_fingerprint_that_it_had() -> None:
    request = NewOrder.model_validate_json((VERSION_1 / "request.json").read_bytes())
    assert request.fingerprint().hex() == FINGERPRINT_OF_VERSION_1


def test_a_request_of_version_1_becomes_the_order_that_it_became() -> None:
    was = without_token(event_of_version_1("ORDER_CREATED")["data"])["order"]
    del was["key_hash"]  # the intake adds it
    request = NewOrder.model_validate_json((VERSION_1 / "request.json").read_bytes())
    placed = request.placed(UUID(was["id"]), datetime.fromisoformat(was["created_at"]))
    order = json.loads(msgspec.json.encode(placed.order))
    for item_was, item in zip(was.pop("items"), order.pop("items"), strict=True):
        assert item == item | item_was
    assert order == order | was
    assert placed.payment_method == CARD


def test_the_order_of_the_samples_is_what_its_request_makes() -> None:
    was = present.EVENTS["ORDER_CREATED"].data
    request = NewOrder.model_validate_json((VERSION_2 / "request.json").read_bytes())
    assert request.placed(was.order.id, was.order.created_at) == was


def test_there_is_a_sample_of_every_type() -> None:
    names = {file.stem for file in VERSION_2.iterdir()} - {"request"}
    assert names == set(present.EVENTS) == {type_of(event) for event in (*EVENTS, *LATER_EVENTS)}


@pytest.mark.parametrize("event_type", present.EVENTS)
def test_an_event_of_version_2_is_written_like_its_sample(event_type: str) -> None:
    sample = (VERSION_2 / f"{event_type}.json").read_text("utf-8")
    assert indented(present.EVENTS[event_type]).decode() == sample, (
        "An event is written differently now. If every reader of version 2 understands it, renew the sample "
        "with `python -m tests.samples`; otherwise the contracts need a new version."
    )


@pytest.mark.parametrize("event_type", TYPES)
def test_a_sample_of_version_2_is_read(event_type: str) -> None:
    body = b"[" + (VERSION_2 / f"{event_type}.json").read_bytes() + b"]"
    assert envelope.decode(body) == ([present.EVENTS[event_type]], [])


@pytest.mark.parametrize("event_type", present.EVENTS)
def test_the_contract_of_every_type_reads_its_sample(event_type: str) -> None:
    event = present.EVENTS[event_type]
    assert msgspec.json.decode((VERSION_2 / f"{event_type}.json").read_bytes(), type=type(event)) == event


@pytest.mark.parametrize("event_type", [type_of(event) for event in LATER_EVENTS])
def test_a_later_event_waits_for_a_newer_version(event_type: str) -> None:
    event = present.EVENTS[event_type]
    sample = (VERSION_2 / f"{event_type}.json").read_bytes()
    events, [rejected] = envelope.decode(b"[" + sample + b"]")
    assert not events
    assert (rejected.code, rejected.for_newer_version) == ("unknown_type", True)
    assert (rejected.id, rejected.type, rejected.order_id) == (event.id, event_type, event.subject)
    assert json.loads(rejected.body) == json.loads(sample)
