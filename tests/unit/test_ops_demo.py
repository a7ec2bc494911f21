"""The faults that the demo reports."""

from pathlib import Path

from events.journey import WAYS
from ops.demo.examples import FOLDER, Example, load
from ops.demo.journey import Journey
from ops.demo.mailbox import Mailbox

EXAMPLE: Example = load(FOLDER)[0]
ID = "01930000-0000-7000-8000-000000000000"


def journey(status: str, *stages: str) -> Journey:
    order = {"id": ID, "status": status, "total": EXAMPLE.total, "reason": None}
    return Journey(EXAMPLE, {**order, "timeline": [{"type": stage} for stage in stages]})


def write_mail(folder: Path, stage: str, recipient: str) -> None:
    headers = f'Message-ID: <{ID}.{stage}@orderflow.example>\r\nTo: "Ana" <{recipient}>\r\n\r\n'
    (folder / f"{len(list(folder.iterdir()))}.eml").write_text(headers)


def test_an_order_that_ended_well_has_no_faults() -> None:
    assert journey("SHIPPED", *WAYS["SHIPPED"]).faults() == []


def test_an_order_is_over_only_when_its_timeline_is_whole() -> None:
    assert not journey("SHIPPED", "ORDER_CREATED", "SHIPPED").is_over
    assert journey("SHIPPED", *WAYS["SHIPPED"]).is_over


def test_an_order_that_is_stuck_is_named_with_where_it_is() -> None:
    assert journey("INVOICE_CREATED", "ORDER_CREATED", "INVOICE_CREATED").faults() == [
        f"WEB-1042 ({ID}) is still at INVOICE_CREATED."
    ]


def test_an_order_that_was_never_placed_is_a_fault() -> None:
    assert Journey(EXAMPLE).faults() == ["WEB-1042 was not placed."]


def test_another_answer_to_the_same_key_is_a_fault() -> None:
    replayed = journey("SHIPPED", *WAYS["SHIPPED"])
    replayed.replay = "answered 422: {}"
    assert replayed.faults() == ["WEB-1042, sent again, answered 422: {}"]


def test_a_mail_that_is_not_there_or_went_to_somebody_else_is_missing(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path)
    write_mail(tmp_path, "ORDER_CREATED", "ana@example.com")
    write_mail(tmp_path, "INVOICE_CREATED", "ana@example.com")
    write_mail(tmp_path, "PAYMENT_CONFIRMED", "ben@example.com")
    shipped = journey("SHIPPED", *WAYS["SHIPPED"])
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
