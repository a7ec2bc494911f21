"""An order's status: the furthest event it has reached, whatever came when and how often."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.contracts import EVENTS, RANKS, AnyEvent, type_of
from services.order.documents import Order
from services.order.domain import Entry, Progress, status_of
from tests.factories import an_order, one_of_each

ORDER = an_order()
EVENT = one_of_each(ORDER)
CONTRADICTING = one_of_each(ORDER)
"""Other events of the same types about the same order."""

JOURNEYS = [
    ["ORDER_CREATED"],
    ["ORDER_CREATED", "INVOICE_CREATED"],
    ["ORDER_CREATED", "INVOICE_CREATED", "PAYMENT_FAILED"],
    ["ORDER_CREATED", "INVOICE_CREATED", "PAYMENT_CONFIRMED"],
    ["ORDER_CREATED", "INVOICE_CREATED", "PAYMENT_CONFIRMED", "SHIPPED"],
    ["ORDER_CREATED", "INVOICE_CREATED", "PAYMENT_CONFIRMED", "SHIPMENT_ERROR"],
    ["ORDER_CREATED", "INVOICE_CREATED", "PAYMENT_CONFIRMED", "SHIPMENT_ERROR", "PAYMENT_REFUNDED"],
]


def document(entries: Sequence[Entry]) -> bytes:
    return Order.of(ORDER, entries).json()


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Entry], list[Entry]]:
    """A set of events that begins with the order's own, and a delivery of it: shuffled, with duplicates."""
    pool: list[AnyEvent] = [*EVENT.values(), *CONTRADICTING.values()]
    seen = draw(st.lists(st.sampled_from(pool), unique_by=lambda event: event.id))
    entries = [Entry.of(event) for event in (EVENT["ORDER_CREATED"], *seen)]
    again = draw(st.lists(st.sampled_from(entries)))
    return entries, draw(st.permutations([*entries, *again]))


@given(deliveries())
def test_any_order_and_any_number_of_deliveries_gives_the_same_status_and_timeline(
    delivery: tuple[list[Entry], list[Entry]],
) -> None:
    entries, delivered = delivery
    assert Progress.of(delivered) == Progress.of(entries)
    assert document(delivered) == document(entries)


@given(deliveries())
def test_the_status_is_the_furthest_rank_and_the_timeline_is_sorted_by_it(
    delivery: tuple[list[Entry], list[Entry]],
) -> None:
    entries, delivered = delivery
    progress = Progress.of(delivered)
    assert RANKS[progress.status] == max(RANKS[entry.type] for entry in entries)
    assert {entry.event_id for entry in progress.timeline} == {entry.event_id for entry in entries}
    places = [(RANKS[entry.type], entry.time) for entry in progress.timeline]
    assert places == sorted(places)


def test_of_any_two_types_the_further_one_is_the_status() -> None:
    ranked = [type_of(event) for event in EVENTS]
    for nearer, further in itertools.combinations(ranked, 2):
        assert status_of([nearer, further]) == status_of([further, nearer, nearer]) == further


def progress_after(*types: str) -> Progress:
    return Progress.of([Entry.of(EVENT[each]) for each in types])


@pytest.mark.parametrize("journey", JOURNEYS, ids=lambda journey: str(journey[-1]))
def test_a_journeys_last_event_is_its_status(journey: list[str]) -> None:
    progress = progress_after(*journey)
    assert progress.status == journey[-1]
    assert [entry.type for entry in progress.timeline] == journey


@pytest.mark.parametrize(
    ("status", "payment", "reason"),
    [
        ("ORDER_CREATED", None, None),
        ("INVOICE_CREATED", None, None),
        ("PAYMENT_FAILED", "failed", "card_declined"),
        ("PAYMENT_CONFIRMED", "captured", None),
        ("SHIPMENT_ERROR", "captured", "destination_not_served"),
        ("SHIPPED", "captured", None),
        ("PAYMENT_REFUNDED", "refunded", "destination_not_served"),
    ],
)
def test_a_status_says_how_the_payment_stands_and_why_it_ended_badly(
    status: str, payment: str | None, reason: str | None
) -> None:
    [journey] = [journey for journey in JOURNEYS if journey[-1] == status]
    progress = progress_after(*journey)
    assert progress.payment_status == payment
    assert (progress.reason.code if progress.reason else None) == reason


def test_an_event_that_overtook_the_others_tells_what_led_to_it() -> None:
    progress = progress_after("ORDER_CREATED", "SHIPPED")
    assert progress.invoice
    assert progress.payment
    assert progress.shipment
    assert progress.payment_status == "captured"


def test_an_order_that_contradicts_itself_shows_both_lines() -> None:
    both = [Entry.of(each["SHIPPED"]) for each in (EVENT, CONTRADICTING)]
    progress = Progress.of([Entry.of(EVENT["ORDER_CREATED"]), *both])
    assert [entry.type for entry in progress.timeline] == ["ORDER_CREATED", "SHIPPED", "SHIPPED"]


def test_a_line_of_a_type_that_only_a_newer_version_knows_changes_nothing() -> None:
    known = [Entry.of(EVENT["ORDER_CREATED"]), Entry.of(EVENT["INVOICE_CREATED"])]
    unknown = replace(Entry.of(EVENT["SHIPPED"]), type="ORDER_EXPORTED")
    assert Progress.of([*known, unknown]) == Progress.of(known)
    assert document([*known, unknown]) == document(known)
