"""The failures that the demo reports."""

from dataclasses import replace
from pathlib import Path

from events.journey import WAYS
from sandbox.demo.examples import FOLDER, Example, load
from sandbox.demo.mailbox import Mailbox
from sandbox.demo.order import DemoOrder

EXAMPLE: Example = load(FOLDER)[0]
ID = "01930000-0000-7000-8000-000000000000"


def an_order(status: str, *stages: str) -> DemoOrder:
    order = {"id": ID, "status": status, "total": EXAMPLE.total, "tax": "6.77", "reason": None}
    return DemoOrder(EXAMPLE, {**order, "timeline": [{"type": stage} for stage in stages]})


def write_mail(folder: Path, stage: str, recipient: str) -> None:
    headers = f'Message-ID: <{ID}.{stage}@orderflow.example>\r\nTo: "Ana" <{recipient}>\r\n\r\n'
    (folder / f"{len(list(folder.iterdir()))}.eml").write_text(headers)


def test_an_order_that_ended_well_has_no_failures() -> None:
    assert an_order("SHIPPED", *WAYS["SHIPPED"]).failures() == []


def test_an_order_is_finished_only_when_its_timeline_is_whole() -> None:
    assert not an_order("SHIPPED", "ORDER_CREATED", "SHIPPED").is_finished
    assert an_order("SHIPPED", *WAYS["SHIPPED"]).is_finished


def test_an_order_that_is_stuck_is_named_with_where_it_is() -> None:
    assert an_order("INVOICE_CREATED", "ORDER_CREATED", "INVOICE_CREATED").failures() == [
        f"WEB-1042 ({ID}) is still at INVOICE_CREATED."
    ]


def test_an_order_that_was_never_placed_is_a_failure() -> None:
    assert DemoOrder(EXAMPLE).failures() == ["WEB-1042 was not placed."]


def test_another_tax_than_expected_is_a_failure() -> None:
    shipped = an_order("SHIPPED", *WAYS["SHIPPED"])
    shipped.example = replace(EXAMPLE, tax="6.76")
    assert shipped.failures() == ["WEB-1042 has a tax of 6.77, not of 6.76."]
    shipped.example = replace(EXAMPLE, tax="6.77")
    assert shipped.failures() == []


def test_another_answer_to_the_same_key_is_a_failure() -> None:
    replayed = an_order("SHIPPED", *WAYS["SHIPPED"])
    replayed.replay_failure = "answered 422: {}"
    assert replayed.failures() == ["WEB-1042, sent a second time, answered 422: {}"]


def test_a_mail_that_is_not_there_or_went_to_somebody_else_is_missing(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path)
    write_mail(tmp_path, "ORDER_CREATED", "ana@example.com")
    write_mail(tmp_path, "INVOICE_CREATED", "ana@example.com")
    write_mail(tmp_path, "PAYMENT_CONFIRMED", "ben@example.com")
    shipped = an_order("SHIPPED", *WAYS["SHIPPED"])
    assert mailbox.missing([shipped]) == [
        "WEB-1042: no mail about PAYMENT_CONFIRMED to ana@example.com.",
        "WEB-1042: no mail about SHIPPED to ana@example.com.",
    ]
    write_mail(tmp_path, "PAYMENT_CONFIRMED", "ana@example.com")
    write_mail(tmp_path, "SHIPPED", "ana@example.com")
    assert mailbox.missing([shipped]) == []
    assert mailbox.by_stage() == {
        "ORDER_CREATED": 1,
        "INVOICE_CREATED": 1,
        "PAYMENT_CONFIRMED": 2,
        "SHIPPED": 1,
    }
