"""An order's status is the furthest event that it has reached, whatever the order and number of arrivals."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from events.contracts import AnyEvent, type_of
from events.delays import WaitReason
from events.journey import (
    ENDS,
    INVOICE,
    MILESTONES,
    PAYMENT,
    RANKS,
    REFUND,
    SHIPMENT,
    STAGES,
    Stage,
    has_passed,
)
from services.order.documents import Order
from services.order.domain import Facts, Progress, TimelineEntry, status_of
from tests.factories import a_delay, an_order, one_of_each

ORDER = an_order()
WHYS: tuple[WaitReason, ...] = ("outage", "unknown")
EVENT = one_of_each(ORDER)
CONTRADICTING = one_of_each(ORDER)
"""Other events of the same types about the same order."""

DELAYS = [a_delay(ORDER, stage, why) for stage in STAGES for why in WHYS]

JOURNEYS = [
    ["ORDER_CREATED"],
    ["ORDER_CREATED", "INVOICE_CREATED"],
    ["ORDER_CREATED", "INVOICE_CREATED", "PAYMENT_FAILED"],
    ["ORDER_CREATED", "INVOICE_CREATED", "PAYMENT_CONFIRMED"],
    ["ORDER_CREATED", "INVOICE_CREATED", "PAYMENT_CONFIRMED", "SHIPPED"],
    ["ORDER_CREATED", "INVOICE_CREATED", "PAYMENT_CONFIRMED", "SHIPMENT_ERROR"],
    ["ORDER_CREATED", "INVOICE_CREATED", "PAYMENT_CONFIRMED", "SHIPMENT_ERROR", "PAYMENT_REFUNDED"],
]


def document(entries: Sequence[TimelineEntry]) -> bytes:
    return Order.of(ORDER, entries).json()


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[TimelineEntry], list[TimelineEntry]]:
    """A set of events that begins with the order's own, and a delivery of it: shuffled, with duplicates."""
    pool: list[AnyEvent] = [*EVENT.values(), *CONTRADICTING.values(), *DELAYS]
    seen = draw(st.lists(st.sampled_from(pool), unique_by=lambda event: event.id))
    entries = [TimelineEntry.of(event) for event in (EVENT["ORDER_CREATED"], *seen)]
    again = draw(st.lists(st.sampled_from(entries)))
    return entries, draw(st.permutations([*entries, *again]))


@given(deliveries())
def test_any_order_and_any_number_of_deliveries_gives_the_same_status_and_timeline(
    delivery: tuple[list[TimelineEntry], list[TimelineEntry]],
) -> None:
    entries, delivered = delivery
    assert Progress.of(delivered) == Progress.of(entries)
    assert document(delivered) == document(entries)


@given(deliveries())
def test_the_status_is_the_furthest_rank_and_the_timeline_is_sorted_by_it(
    delivery: tuple[list[TimelineEntry], list[TimelineEntry]],
) -> None:
    entries, delivered = delivery
    progress = Progress.of(delivered)
    milestones = [entry for entry in entries if not entry.facts.delay]
    assert RANKS[progress.status] == max(RANKS[entry.type] for entry in milestones)
    assert {entry.event_id for entry in progress.timeline} == {entry.event_id for entry in milestones}
    places = [(RANKS[entry.type], entry.time) for entry in progress.timeline]
    assert places == sorted(places)


@given(deliveries())
def test_the_delay_of_the_furthest_stage_that_was_not_passed_is_shown(
    delivery: tuple[list[TimelineEntry], list[TimelineEntry]],
) -> None:
    entries, delivered = delivery
    types = [entry.type for entry in entries if not entry.facts.delay]
    said = {entry.facts.delay.stage for entry in entries if entry.facts.delay}
    open_stages = [stage.name for stage in STAGES if stage.name in said and not has_passed(stage.name, types)]
    waiting = Progress.of(delivered).waiting
    assert ([waiting.stage] if waiting else []) == open_stages[-1:]


def test_a_delay_of_a_stage_that_this_version_does_not_know_is_left_out() -> None:
    created, delayed = TimelineEntry.of(EVENT["ORDER_CREATED"]), TimelineEntry.of(DELAYS[0])
    assert delayed.facts.delay
    unknown = Facts(delay=structs.replace(delayed.facts.delay, stage="customs"))
    assert Progress.of([created, delayed]).waiting
    assert Progress.of([created, replace(delayed, facts=unknown)]) == Progress.of([created])


def test_of_any_two_types_the_further_one_is_the_status() -> None:
    ranked = [type_of(event) for event in MILESTONES]
    for nearer, further in itertools.combinations(ranked, 2):
        assert status_of([nearer, further]) == status_of([further, nearer, nearer]) == further


def progress_after(*types: str) -> Progress:
    return Progress.of([TimelineEntry.of(EVENT[each]) for each in types])


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
def test_payment_status_and_reason_follow_from_the_status(
    status: str, payment: str | None, reason: str | None
) -> None:
    [journey] = [journey for journey in JOURNEYS if journey[-1] == status]
    progress = progress_after(*journey)
    assert progress.payment_status == payment
    assert (progress.reason.code if progress.reason else None) == reason


def test_an_event_that_overtook_others_brings_their_facts() -> None:
    progress = progress_after("ORDER_CREATED", "SHIPPED")
    assert progress.invoice
    assert progress.payment
    assert progress.shipment
    assert progress.payment_status == "captured"


def test_two_contradicting_events_are_both_in_the_timeline() -> None:
    both = [TimelineEntry.of(each["SHIPPED"]) for each in (EVENT, CONTRADICTING)]
    progress = Progress.of([TimelineEntry.of(EVENT["ORDER_CREATED"]), *both])
    assert [entry.type for entry in progress.timeline] == ["ORDER_CREATED", "SHIPPED", "SHIPPED"]


def test_entries_of_unknown_types_are_ignored() -> None:
    known = [TimelineEntry.of(EVENT["ORDER_CREATED"]), TimelineEntry.of(EVENT["INVOICE_CREATED"])]
    unknown = replace(TimelineEntry.of(EVENT["SHIPPED"]), type="ORDER_EXPORTED")
    assert Progress.of([*known, unknown]) == Progress.of(known)
    assert document([*known, unknown]) == document(known)


def waiting_after(stage: Stage, *types: str) -> str | None:
    delay = TimelineEntry.of(a_delay(ORDER, stage))
    progress = Progress.of([delay, *(TimelineEntry.of(EVENT[each]) for each in ("ORDER_CREATED", *types))])
    return progress.waiting.stage if progress.waiting else None


@pytest.mark.parametrize(
    ("stage", "still", "over"),
    [
        (INVOICE, [], ["INVOICE_CREATED", "PAYMENT_CONFIRMED", "PAYMENT_FAILED", "SHIPPED"]),
        (PAYMENT, ["INVOICE_CREATED"], ["PAYMENT_CONFIRMED", "PAYMENT_FAILED", "SHIPMENT_ERROR"]),
        (SHIPMENT, ["INVOICE_CREATED", "PAYMENT_CONFIRMED"], ["SHIPPED", "SHIPMENT_ERROR"]),
        (REFUND, ["PAYMENT_CONFIRMED", "SHIPMENT_ERROR"], ["PAYMENT_REFUNDED", "SHIPPED", "PAYMENT_FAILED"]),
    ],
    ids=[stage.name for stage in STAGES],
)
def test_a_milestone_of_the_stage_or_a_later_one_ends_the_delay(
    stage: Stage, still: list[str], over: list[str]
) -> None:
    assert waiting_after(stage, *still) == stage.name
    for fact in over:
        assert waiting_after(stage, *still, fact) is None


def test_an_order_with_a_final_status_has_no_delay() -> None:
    for stage in STAGES:
        for end in ENDS:
            assert waiting_after(stage, end) is None


def test_the_latest_delay_of_a_stage_is_shown_and_the_timeline_has_none() -> None:
    entries = [TimelineEntry.of(EVENT["ORDER_CREATED"]), *(TimelineEntry.of(delay) for delay in DELAYS)]
    answered = json.loads(document(entries))
    message = "The payment provider has not told the outcome yet. It is asked again about the same refund."
    assert answered["waiting"] == {
        "stage": "refund",
        "reason": {"code": "no_answer", "message": message},
        "since": "2026-11-22T12:00:00Z",
    }
    assert [line["type"] for line in answered["timeline"]] == ["ORDER_CREATED"]
