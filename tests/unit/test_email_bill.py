"""What mails say of an order: its amounts, people and places, in text and in HTML alike."""

import email
import email.policy
import json
import re
from datetime import date
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from events.contracts import (
    Address,
    AnyMilestone,
    Customer,
    Discount,
    InvoiceCreated,
    Invoiced,
    Item,
    Order,
    Seller,
    Shipping,
    TaxCategory,
)
from services.email.domain import Mail
from services.email.rendering import MailRenderer
from tests.factories import (
    CARD,
    a_free_order,
    a_rich_order,
    a_seller,
    an_invoice,
    an_item,
    an_order,
    one_of_each,
    order_created,
)

RENDERER = MailRenderer("The Shop <orders@shop.example>")
FORMS = pytest.mark.parametrize("form", ["plain", "html"])
STAGES = list(one_of_each())
PLAIN = str.maketrans({"\N{NO-BREAK SPACE}": " ", "\N{MULTIPLICATION SIGN}": "x", "\N{MINUS SIGN}": "-"})
VERSION_1 = Path(__file__).parents[1] / "samples" / "version_1"


class Page(HTMLParser):
    """The text of an HTML document, with a space between its elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.feed(html.partition("</head>")[2])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.text += "" if tag == "bdi" else " "

    def handle_data(self, data: str) -> None:
        self.text += data


def body(event: AnyMilestone, form: str) -> str:
    """One body of the mail about an event, as it was sent."""
    rendered = RENDERER.render(Mail.about(event)).content
    message = email.message_from_bytes(rendered, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    part = message.get_body((form,))
    assert part is not None
    content = part.get_content()
    assert isinstance(content, str)
    return content.replace("\r\n", "\n").translate(PLAIN)


def read(event: AnyMilestone, form: str) -> str:
    """The words of a body, without their arrangement."""
    content = body(event, form)
    return " ".join((Page(content).text if form == "html" else content).split())


def invoiced(order: Order, **changes: Any) -> InvoiceCreated:
    return InvoiceCreated.of(Invoiced(order=order, invoice=an_invoice(**changes), payment_method=CARD))


def a_net_order(**changes: Any) -> Order:
    """10.00 + 20.00 - 3.00 + 5.00 BRL without tax, at two rates."""
    item: dict[str, Any] = {"sku": "X", "quantity": 1, "order_discount": 150}
    fields: dict[str, Any] = {
        "items": (
            Item(**item, name="Pot", unit_price=1000, tax_rate="0.1", subtotal=850, tax=85, total=935),
            Item(**item, name="Pan", unit_price=2000, tax_rate="0.2", subtotal=1850, tax=370, total=2220),
        ),
        "discount": Discount(amount=300, rate="0.1"),
        "shipping": Shipping(price=500, tax_rate="0.20", subtotal=500, tax=100, total=600),
        "subtotal": 3200,
        "tax": 555,
        "total": 3755,
    }
    return an_order(**fields | changes)


def test_prices_with_tax_are_shown_with_it() -> None:
    assert """
Mug
  2 x 19.90 EUR = 39.80 EUR, including 19% tax
  10% discount (Two for less): -3.98 EUR
Book
  1 x 12.00 EUR = 12.00 EUR, including 7% tax
Cable, per metre
  12.5 x 1.2345 EUR = 15.43 EUR, including 19% tax

Discount (SUMMER5): -5.00 EUR
Shipping (Parcel), including 19% tax: 4.90 EUR
Total: 63.15 EUR
Including 7% tax: 0.72 EUR
Including 19% tax: 8.32 EUR
Your tax ID: DE136695976 (Weber GmbH)

Note: Please ring twice.
""" in body(order_created(a_rich_order()), "plain")


def test_prices_without_tax_are_shown_without_it_and_rates_are_told_apart() -> None:
    assert """
Pot
  1 x 10.00 BRL = 10.00 BRL, plus 10% tax
Pan
  1 x 20.00 BRL = 20.00 BRL, plus 20% tax

10% discount: -3.00 BRL
Shipping, plus 20% tax: 5.00 BRL
Subtotal: 32.00 BRL
10% tax: 0.85 BRL
20% tax: 4.70 BRL
Total: 37.55 BRL
""" in body(order_created(a_net_order()), "plain")


@pytest.mark.parametrize("order", [a_rich_order(), a_net_order(), an_order()], ids=["gross", "net", "plain"])
def test_both_forms_say_the_same_of_the_order(order: Order) -> None:
    event = order_created(order)
    text = read(event, "plain").rpartition("YOUR ORDER ")[2].partition("DELIVERY ADDRESS")[0]
    html = read(event, "html").rpartition("Your order ")[2].partition("Delivery address")[0]
    words = re.compile(r"[^\s=:]+")
    assert sorted(words.findall(text)) == sorted(words.findall(html))


@FORMS
def test_shipping_that_costs_nothing_is_free(form: str) -> None:
    free = Shipping(name="Post", price=0, tax_rate="0.19", subtotal=0, tax=0, total=0)
    assert re.search(r"Shipping \(Post\):? free", read(order_created(a_rich_order(shipping=free)), form))
    unnamed = replace(free, name="Shipping")
    assert re.search(r"(BRL|tax) Shipping:? free", read(order_created(an_order(shipping=unnamed)), form))


@FORMS
def test_a_company_that_owes_the_tax_itself_is_told_so(form: str) -> None:
    law = "Article 196, Directive 2006/112/EC"
    item = an_item(tax_rate="0", tax=0, total=3980, tax_category="AE", exemption_reason=law)
    shipping = Shipping(price=0, subtotal=0, tax=0, total=0, tax_category="AE", exemption_reason=law)
    said = read(order_created(an_order(items=(item, item), shipping=shipping, reverse_charge=True)), form)
    assert said.count("Reverse charge: you owe the tax to your tax office (Article 196, Directive 2006/") == 1


@FORMS
@pytest.mark.parametrize(
    ("category", "words"),
    [
        ("E", "Exempt from tax (why not)"),
        ("K", "Supply to another country of the European Union, free of tax (why not)"),
        ("G", "Export, free of tax (why not)"),
        ("O", "Not subject to tax (why not)"),
    ],
)
def test_an_order_without_tax_says_why(category: TaxCategory, words: str, form: str) -> None:
    item = an_item(tax_rate="0", tax=0, total=3980, tax_category=category, exemption_reason="why not")
    assert words in read(order_created(an_order(items=(item,))), form)
    silent = read(order_created(an_order(items=(replace(item, exemption_reason=None),))), form)
    assert words.removesuffix(" (why not)") in silent
    assert "(" not in silent


BUYER = Customer(
    name="Ana Souza", email="ana@example.com", company="Souza Ltda", phone="+5511999", tax_id="BR123"
)
HOME = Address(line1="Rua Augusta 1", city="São Paulo", postal_code="01304-001", country="BR")
OFFICE = Address(line1="Av. Paulista 9", line2="Sala 3", city="Recife", postal_code="50010-000", country="BR")


def addresses(order: Order) -> str:
    text = body(order_created(order), "plain")
    return text[text.index("DELIVERY ADDRESS") : text.index("\n\n-- \n")]


def test_a_company_is_named() -> None:
    assert (
        addresses(an_order(customer=BUYER))
        == """DELIVERY ADDRESS

Souza Ltda
Ana Souza
Rua Augusta 1
01304-001 São Paulo
BR"""
    )


def test_a_billing_address_is_shown_where_it_is_another() -> None:
    gift = replace(HOME, name="Rui Costa")
    order = an_order(customer=BUYER, shipping_address=gift, billing_address=OFFICE)
    assert (
        addresses(order)
        == """DELIVERY ADDRESS

Rui Costa
Rua Augusta 1
01304-001 São Paulo
BR

BILLING ADDRESS

Souza Ltda
Ana Souza
Av. Paulista 9
Sala 3
50010-000 Recife
BR"""
    )
    parcel_to_another = an_order(customer=BUYER, shipping_address=gift)
    assert "Souza" not in addresses(parcel_to_another)
    same = an_order(customer=BUYER, shipping_address=HOME, billing_address=HOME)
    assert "BILLING" not in addresses(same)


@FORMS
def test_every_part_of_the_addresses_is_shown(form: str) -> None:
    depot = replace(HOME, name="Rui Costa", company="Depot", line2="Gate 4", state="SP")
    office = replace(OFFICE, name="Accounts", company="Souza Holding")
    said = read(order_created(an_order(shipping_address=depot, billing_address=office)), form)
    to = "Depot Rui Costa Rua Augusta 1 Gate 4 01304-001 São Paulo SP BR"
    assert re.search(rf"(?i)delivery address {to}", said)
    billed = "Souza Holding Accounts Av. Paulista 9 Sala 3 50010-000 Recife BR"
    assert re.search(rf"(?i)billing address {billed}", said)


@FORMS
@pytest.mark.parametrize("stage", STAGES)
def test_the_note_is_mailed_and_neither_the_phone_nor_the_metadata_is(stage: str, form: str) -> None:
    order = an_order(customer=BUYER, note="Thank you, Ana!", metadata={"campaign": "canary"})
    said = read(one_of_each(order)[stage], form)
    assert "Note: Thank you, Ana!" in said
    assert not any(unsaid in said for unsaid in ("campaign", "canary", "+5511999"))


def test_the_mail_of_the_invoice_names_its_issuer_and_the_issuers_day() -> None:
    event = invoiced(an_order(), issued_on=date(2026, 11, 23), seller=a_seller())
    assert body(event, "plain").endswith("""
Invoice issued by
Example Shop
Ladenstraße 3
10117 Berlin
DE
Tax ID DE123456788
HRB 12345, Berlin
shop@example.com
""")
    assert (
        "Invoice issued by Example Shop · Ladenstraße 3 · 10117 Berlin · DE · Tax ID DE123456788 · "
        "HRB 12345, Berlin · shop@example.com." in read(event, "html")
    )
    for form in ("plain", "html"):
        assert re.search("Issued on:? 23 November 2026", read(event, form))
    assert "Invoice issued by Shop." in read(invoiced(an_order(), seller=Seller(name="Shop")), "html")


@FORMS
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "PAYMENT_FAILED"])
def test_no_mail_about_an_order_that_cost_nothing_talks_of_a_payment(stage: str, form: str) -> None:
    event = one_of_each(a_free_order())[stage]
    said = f"{Mail.about(event).subject} {read(event, form)}"
    talk = "payment|paid|card|charge|refund|money|collect|bank|given back"
    assert not re.search(rf"(?i){talk}", said), said
    assert "Shipping:" not in said or "free" in said
    assert re.search("Total:? 0.00 BRL", said)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("ORDER_CREATED", "There is nothing to pay. Next, we issue the invoice."),
        ("INVOICE_CREATED", "There is nothing to pay, and nothing that you need to do."),
        ("PAYMENT_CONFIRMED", "Your order costs nothing, and it is confirmed."),
        ("SHIPMENT_ERROR", "Your order cost nothing, and there is nothing that you need to do."),
        ("PAYMENT_REFUNDED", "It cost nothing, and there is nothing that you need to do."),
    ],
)
@FORMS
def test_an_order_that_cost_nothing_has_words_of_its_own(stage: str, words: str, form: str) -> None:
    assert words in read(one_of_each(a_free_order())[stage], form)


@FORMS
def test_a_refund_without_a_reason_names_none(form: str) -> None:
    event: Any = one_of_each()["PAYMENT_REFUNDED"]
    said = read(replace(event, data=replace(event.data, reason=None)), form)
    assert "We have given back the whole payment for your order. " in said
    assert "Reason" not in said
    assert "could not be delivered" in read(event, form)


def wild(text: str) -> InvoiceCreated:
    """An invoice with this text in every place that version 2 has for it."""
    address = Address(
        **dict.fromkeys(["line1", "line2", "city", "state", "name", "company"], text),
        postal_code=text[:64],
        country="SA",
    )
    discount = Discount(amount=1, name=text)
    order = an_order(
        customer=Customer(name=text, email="a@example.com", locale="ar", company=text, tax_id=text[:64]),
        shipping_address=address,
        billing_address=replace(address, line1=f"{text}2"),
        items=(an_item(name=text, discount=discount, tax_category="E", exemption_reason=text),),
        discount=discount,
        shipping=Shipping(name=text, price=1, subtotal=1, tax=0, total=1),
        note=text,
    )
    seller = Seller(name=text, address=address, tax_id=text[:64], registration=text)
    return invoiced(order, seller=seller)


def test_text_of_others_is_shown_as_it_is_in_its_own_language_and_direction() -> None:
    text = "<b>{{7*7}}</b> & \"'"
    event = wild(text)
    escaped = "&lt;b&gt;{{7*7}}&lt;/b&gt; &amp; &#34;&#39;"
    html = body(event, "html")
    assert text not in html
    assert body(event, "plain").count(text) == html.count(escaped)
    theirs = f'<bdi dir="auto" lang="ar">{escaped}</bdi>'
    for place in ("Discount (", "Shipping (", "Exempt from tax (", "Note: ", "Your tax ID: "):
        assert place + theirs in html
    isolated = rf'<bdi dir="auto"(?: lang="ar")?>[^<]*{re.escape(escaped)}2?[^<]*</bdi>'
    assert len(re.findall(isolated, html)) == len(re.findall(r"<bdi [^>]*>[^<]*&lt;", html))


@pytest.mark.parametrize("newline", ["\r\n", "\n", "\x00", "\x85", "\u2028"])
def test_no_text_of_others_starts_a_line_of_its_own(newline: str) -> None:
    event = wild(f"Ana{newline}{newline}PAY HERE")
    assert not any(line.startswith("PAY") for line in body(event, "plain").splitlines())


def version_1(stage: str) -> AnyMilestone:
    """An event as a process of version 1 stored it."""
    [event] = json.loads((VERSION_1 / f"{stage}.json").read_bytes())
    assert event["dataschema"].endswith(":1")
    milestone: AnyMilestone = msgspec.json.decode(json.dumps(event), type=AnyMilestone)
    return milestone


@FORMS
@pytest.mark.parametrize("stage", STAGES)
def test_mails_of_version_1_are_still_written(stage: str, form: str) -> None:
    event: Any = version_1(stage)
    said = read(event, form)
    assert event.data.order.items[0].name in said
    assert "None" not in said
    assert "issued by" not in said
    assert re.search(r"(?i)Total:? [0-9.]+ BRL delivery address", said)
    if stage == "INVOICE_CREATED":
        assert re.search("Issued on:? 22 November 2026", said)
