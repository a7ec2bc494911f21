"""The table of stages: everything that follows from it, and the page that shows it."""

from pathlib import Path

import msgspec

from events import envelope
from events.contracts import EVENTS, OrderDelayed, type_of
from events.delays import CAUSES, cause_of, for_parked_event
from events.journey import (
    ALTERNATIVES,
    BEGINNING,
    DEADLINES,
    ENDS,
    MILESTONES,
    PAYMENT,
    RANKS,
    STAGES,
    WAYS,
    stage_begun_by,
)
from ops.services import SERVICES, load
from sandbox.demo.screen import MARKS
from services.email.domain import SUBJECTS
from tests.factories import NOON, a_delay, an_order, one_of_each

ARCHITECTURE = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"


def test_every_event_is_a_milestone_or_a_delay() -> None:
    assert {*MILESTONES, OrderDelayed} == set(EVENTS)
    assert all(len(event.PUBLISHERS) == 1 for event in MILESTONES)
    assert set(OrderDelayed.PUBLISHERS) == {stage.service for stage in STAGES}


def test_a_stage_belongs_to_the_service_that_hears_its_beginning_and_announces_its_ends() -> None:
    for stage in STAGES:
        assert stage.begins in load(stage.service).handlers
        assert all((stage.service,) == end.PUBLISHERS for end in stage.ends)
        assert stage_begun_by(type_of(stage.begins), stage.service) is stage
        assert stage_begun_by(type_of(stage.begins), "email") is None


def test_an_order_has_three_ways_and_each_milestone_is_on_one() -> None:
    assert WAYS == {
        "PAYMENT_FAILED": ("ORDER_CREATED", "INVOICE_CREATED", "PAYMENT_FAILED"),
        "SHIPPED": ("ORDER_CREATED", "INVOICE_CREATED", "PAYMENT_CONFIRMED", "SHIPPED"),
        "PAYMENT_REFUNDED": (
            "ORDER_CREATED",
            "INVOICE_CREATED",
            "PAYMENT_CONFIRMED",
            "SHIPMENT_ERROR",
            "PAYMENT_REFUNDED",
        ),
    }
    assert {status for way in WAYS.values() for status in way} == set(RANKS)
    assert set(ENDS) == set(WAYS)
    assert DEADLINES.keys() | set(ENDS) == set(RANKS)
    for way in WAYS.values():
        assert way[0] == type_of(BEGINNING)
        assert list(way) == sorted(way, key=RANKS.__getitem__)
        assert all(len(set(pair) & set(way)) <= 1 for pair in ALTERNATIVES)


def test_every_milestone_has_a_mail_subject_and_a_mark_in_the_demo() -> None:
    assert SUBJECTS.keys() == MARKS.keys() == RANKS.keys()


def test_a_reason_is_a_code_of_its_own_and_a_sentence_for_every_stage() -> None:
    assert len({cause.code for cause in CAUSES.values()}) == len(CAUSES)
    for stage in STAGES:
        for why in CAUSES:
            said = cause_of(stage, why).message
            assert "{" not in said
            assert said[0].isupper()
            assert said.endswith(".")


def test_a_delay_comes_from_the_service_that_waits_and_is_no_status() -> None:
    order = an_order()
    for stage in STAGES:
        event = a_delay(order, stage)
        assert event.source == f"/services/{stage.service}"
        [decoded], rejected = envelope.decode(b"[" + envelope.encode_one(event) + b"]")
        assert (decoded, rejected) == (event, [])
        assert msgspec.json.decode(envelope.encode_one(event))["data"].keys() == {"order", "delay"}


def test_a_parked_event_delays_its_order_at_the_service_whose_stage_it_begins() -> None:
    order = an_order()
    body = envelope.encode_one(one_of_each(order)["INVOICE_CREATED"])
    delayed = for_parked_event(body, "billing", "defect", NOON)
    assert delayed
    assert (delayed.data.order, delayed.data.delay.stage) == (order, PAYMENT.name)
    newer = body.replace(b"INVOICE_CREATED:2", b"INVOICE_CREATED:3").replace(b'"invoice":', b'"invoices":')
    assert for_parked_event(newer, "billing", "newer", NOON)
    assert for_parked_event(body, "email", "defect", NOON) is None
    for nonsense in (b"", b"nothing", b"[]", b'{"type": "INVOICE_CREATED"}', b"\xff"):
        assert for_parked_event(nonsense, "billing", "dead", NOON) is None


def test_the_page_about_the_architecture_shows_this_table() -> None:
    page = ARCHITECTURE.read_text("utf-8")
    for stage in STAGES:
        ends = " or ".join(f"`{type_of(end)}`" for end in reversed(stage.ends))
        minutes = f"{stage.deadline.total_seconds() / 60:.0f} minutes"
        cells = (stage.name, stage.service, f"`{type_of(stage.begins)}`", ends, stage.asks or "-", minutes)
        assert f"| {' | '.join(cells)} |" in page
    assert " < ".join(f"`{status}`" for status in RANKS) in " ".join(page.split())
    for cause in CAUSES.values():
        assert f"| `{cause.code}` | {cause.message} |" in page


def test_the_page_names_what_each_service_listens_to_and_publishes() -> None:
    page = ARCHITECTURE.read_text("utf-8")
    rows = {
        cells[0].strip(): cells for line in page.splitlines() if len(cells := line.strip("|").split("|")) == 4
    }
    for name in SERVICES:
        _, heard, _, published = rows[name]
        handlers = load(name).handlers.keys()
        if handlers == set(MILESTONES):
            assert heard.strip() == "every milestone"
        elif handlers == {event for event in EVENTS if name not in event.PUBLISHERS}:
            assert heard.strip() == "every event but its own"
        else:
            assert heard.strip() == ", ".join(f"`{type_of(event)}`" for event in handlers)
        announced = [type_of(event) for event in EVENTS if name in event.PUBLISHERS]
        assert set(published.replace(",", " ").split()) == {f"`{event}`" for event in announced}
