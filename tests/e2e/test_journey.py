"""Orders go through all five services, and customers get a mail at every stage."""

import json
import re
import uuid
from decimal import Decimal

from tests.e2e.shop import Json, Shop, an_example, an_order, stages
from tests.e2e.stack import ROOT

PAID_AND_SHIPPED = ["ORDER_CREATED", "INVOICE_CREATED", "PAYMENT_CONFIRMED", "SHIPPED"]


def readme_order() -> Json:
    """The body of the order that README.md places with curl."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(
        r"curl[^\n]*localhost:8000/orders.*?(?:-d|--data|--json) '(\{.*?\})'\n", readme, re.DOTALL
    )
    assert found, "README.md places no order: curl … localhost:8000/orders … -d '{…}'"
    order: Json = json.loads(found[1])
    return order


def test_the_readmes_order_is_shipped_and_its_customer_gets_a_mail_at_every_stage(shop: Shop) -> None:
    order = readme_order()
    order["customer"]["email"] = an_order()["customer"]["email"]
    shipped = shop.finished(shop.place(order)["id"])

    assert shipped["status"] == "SHIPPED"
    assert shipped["reason"] is None
    assert stages(shipped) == PAID_AND_SHIPPED
    assert re.fullmatch(r"\d{4}-\d{6}", shipped["invoice"]["number"])
    assert re.fullmatch(r"[A-Z]{2}\d{9}[A-Z]{2}", shipped["shipment"]["tracking_number"])
    mails = shop.mails(order["customer"]["email"], count=4)
    assert len(mails) == len({mail["subject"] for mail in mails}) == 4
    assert any(shipped["shipment"]["tracking_number"] in mail["text"] for mail in mails)


def test_an_accepted_order_has_a_location_and_totals(shop: Shop) -> None:
    answer = shop.gateway.post("/orders", json=an_order())

    assert answer.status_code == 201
    placed = answer.json()
    assert (placed["subtotal"], placed["tax"], placed["total"]) == ("39.80", "6.77", "46.57")
    assert shop.gateway.get(answer.headers["location"]).json()["id"] == placed["id"]


def test_the_invoice_of_an_order_can_be_read(shop: Shop) -> None:
    shipped = shop.finished(shop.place(an_order())["id"])

    answer = shop.gateway.get(f"/invoices/{shipped['invoice']['number']}")

    assert answer.status_code == 200, answer.text
    assert shipped["invoice"]["number"] in answer.text
    assert shipped["total"] in answer.text


def test_a_rich_orders_totals_and_invoice_are_right_line_by_line(shop: Shop) -> None:
    """Gross prices, a discount on the order, shipping, and tax per rate; expected.toml has the arithmetic."""
    order = an_example("japan-gifts")
    shipped = shop.finished(shop.place(order)["id"])

    assert stages(shipped) == PAID_AND_SHIPPED
    assert (shipped["subtotal"], shipped["tax"], shipped["total"]) == ("9234", "858", "10092")
    invoice = shop.gateway.get(f"/invoices/{shipped['invoice']['number']}").json()
    assert [
        (line["name"], line["order_discount"], line["subtotal"], line["tax"], line["total"])
        for line in invoice["items"]
    ] == [
        ("栗羊羹", "131", "1129", "90", "1219"),
        ("宇治抹茶 40 g", "251", "2167", "174", "2341"),
        ("急須", "618", "5238", "524", "5762"),
    ]
    shipping = invoice["shipping"]
    assert (
        shipping["name"],
        shipping["price"],
        shipping["subtotal"],
        shipping["tax"],
        shipping["total"],
    ) == (
        *("宅急便", "770"),
        *("700", "70", "770"),
    )
    assert [(tax["rate"], tax["net"], tax["tax"]) for tax in invoice["taxes"]] == [
        ("0.08", "3296", "264"),
        ("0.1", "5938", "594"),
    ]
    assert (invoice["subtotal"], invoice["tax"], invoice["total"]) == ("9234", "858", "10092")
    assert (invoice["discount"]["amount"], invoice["discount"]["name"]) == ("1000", "秋の感謝祭")
    mails = shop.mails(order["customer"]["email"], count=4)
    [mail] = [mail["text"] for mail in mails if mail["subject"].startswith("The invoice")]
    assert all(part in mail for part in (invoice["number"], "秋の感謝祭", "宅急便", "10092"))


def test_an_order_that_costs_nothing_is_invoiced_and_shipped_without_a_charge(shop: Shop) -> None:
    order = an_example("ireland-sample")
    shipped = shop.finished(shop.place(order)["id"])

    assert stages(shipped) == PAID_AND_SHIPPED
    [paid] = [line["detail"] for line in shipped["timeline"] if line["type"] == "PAYMENT_CONFIRMED"]
    assert (paid["provider"], paid["amount"]) == ("none", "0.00")
    invoice = shop.gateway.get(f"/invoices/{shipped['invoice']['number']}").json()
    assert [line["total"] for line in invoice["items"]] == ["0.00", "0.00"]
    assert len(shop.mails(order["customer"]["email"], count=4)) == 4


def test_a_declined_card_ends_the_order_with_a_reason(shop: Shop) -> None:
    order = an_order(payment_method="pm_card_chargeDeclinedInsufficientFunds")
    failed = shop.finished(shop.place(order)["id"])

    assert failed["status"] == "PAYMENT_FAILED"
    assert failed["reason"]["code"] == "insufficient_funds"
    assert failed["reason"]["message"]
    assert failed["shipment"] is None
    assert stages(failed) == ["ORDER_CREATED", "INVOICE_CREATED", "PAYMENT_FAILED"]
    assert len(shop.mails(order["customer"]["email"], count=3)) == 3


def test_an_order_that_cannot_be_delivered_is_refunded(shop: Shop) -> None:
    order = an_order()
    order["shipping_address"] = {"line1": "Base 1", "city": "South Pole", "postal_code": "0", "country": "AQ"}
    refunded = shop.finished(shop.reached(shop.place(order)["id"], "PAYMENT_REFUNDED")["id"])

    assert refunded["status"] == "PAYMENT_REFUNDED"
    assert refunded["reason"]["code"]
    assert stages(refunded) == [
        "ORDER_CREATED",
        "INVOICE_CREATED",
        "PAYMENT_CONFIRMED",
        "SHIPMENT_ERROR",
        "PAYMENT_REFUNDED",
    ]
    assert len(shop.mails(order["customer"]["email"], count=5)) == 5


def test_the_same_key_and_body_make_one_order(shop: Shop) -> None:
    key, order = uuid.uuid4().hex, an_order()
    first = shop.gateway.post("/orders", json=order, headers={"Idempotency-Key": key})
    shop.finished(first.json()["id"])

    again = shop.gateway.post("/orders", json=order, headers={"Idempotency-Key": key})

    assert (first.status_code, again.status_code) == (201, 201)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == first.json()
    assert len(shop.mails(order["customer"]["email"], count=4)) == 4


def test_the_same_key_with_another_body_is_refused(shop: Shop) -> None:
    key = uuid.uuid4().hex
    shop.place(an_order(), key)

    other = shop.gateway.post("/orders", json=an_order(), headers={"Idempotency-Key": key})

    assert other.status_code == 422
    assert other.headers["content-type"] == "application/problem+json"


def test_currencies_without_and_with_three_decimals_are_charged_and_shipped(shop: Shop) -> None:
    for currency, price, total in (("JPY", "1990", "3980"), ("KWD", "19.905", "39.810")):
        item = {"sku": "MUG-01", "name": "Mug", "quantity": 2, "unit_price": price}
        shipped = shop.finished(shop.place(an_order(currency=currency, items=[item]))["id"])
        assert shipped["status"] == "SHIPPED"
        assert shipped["total"] == total
        assert Decimal(shipped["tax"]) == 0
