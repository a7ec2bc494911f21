"""The answer about an order: its timeline shows facts in the currency's decimals, and no more than needed."""

from datetime import date

import msgspec
from msgspec.structs import replace
from uuid_utils.compat import uuid7

from events.contracts import (
    AnyEvent,
    InvoiceCreated,
    Invoiced,
    Item,
    Paid,
    PaymentConfirmed,
    PaymentRefunded,
    RefundDetails,
    Refunded,
    RefundedLine,
    Seller,
    type_of,
)
from services.order.documents import Order
from services.order.domain import TimelineEntry
from tests.factories import CARD, NOON, a_payment, an_invoice, an_item, an_order, order_created


def shown(*events: AnyEvent) -> Order:
    order = events[0].data.order
    return Order.of(order, [TimelineEntry.of(event) for event in events])


def detail(document: Order, event: type[AnyEvent]) -> dict[str, object]:
    [entry] = [entry for entry in document.timeline if entry.type == type_of(event)]
    return entry.detail


def test_the_timeline_does_not_repeat_the_seller() -> None:
    invoice = an_invoice(issued_on=date(2026, 11, 22), seller=Seller(name="Example Shop"))
    data = Invoiced(order=an_order(), payment_method=CARD, invoice=invoice)
    document = shown(InvoiceCreated.of(data))
    assert detail(document, InvoiceCreated) == {
        "number": "2026-000001",
        "issued_at": "2026-11-22T12:00:00Z",
        "issued_on": "2026-11-22",
    }


def test_the_amounts_of_refunded_lines_are_decimal_strings() -> None:
    order = an_order()
    line = RefundedLine(id="1", subtotal=1990, tax=338, total=2328)
    refund = RefundDetails(
        id=str(uuid7()), provider_reference="re_1", amount=2328, refunded_at=NOON, lines=(line,)
    )
    data = Refunded(order=order, invoice=an_invoice(), payment=a_payment(order), refund=refund)
    found = detail(shown(PaymentRefunded.of(data)), PaymentRefunded)
    assert found["amount"] == "23.28"
    assert found["lines"] == ({"id": "1", "subtotal": "19.90", "tax": "3.38", "total": "23.28"},)


def test_a_payment_of_nothing_is_captured() -> None:
    order = an_order(items=(an_item(subtotal=0, tax=0, total=0),))
    payment = a_payment(order, provider="none", provider_reference="none")
    document = shown(PaymentConfirmed.of(Paid(order=order, invoice=an_invoice(), payment=payment)))
    assert document.payment
    assert document.payment.status == "captured"
    assert detail(document, PaymentConfirmed)["amount"] == "0.00"


def test_an_order_of_version_1_is_shown_with_what_its_fields_mean() -> None:
    older = Item(
        sku="MUG-01",
        name="Mug",
        quantity=2,
        unit_price=1990,
        tax_rate="0.17",
        subtotal=3980,
        tax=677,
        total=4657,
    )
    document = msgspec.json.decode(shown(order_created(replace(an_order(), items=(older,)))).json())
    [item] = document["items"]
    assert (item["id"], item["tax_category"], item["order_discount"]) == ("1", "S", "0.00")
    assert (document["prices"], document["tax_rounding"], document["metadata"]) == ("net", "line", {})
