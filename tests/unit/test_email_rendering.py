"""Rendered mails: each stage has its own text, and customers' text is shown as they wrote it."""

import email
import email.policy
import re
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.contracts import (
    NO_POSTAL_CODE,
    Address,
    AnyMilestone,
    Customer,
    Order,
    OrderCreated,
    type_of,
)
from events.journey import MILESTONES
from events.limits import OBSTACLES
from services.email.domain import SUBJECTS, Mail
from services.email.handlers import HANDLERS
from services.email.mailer import RenderedMail
from services.email.mime import UnusableAddress
from services.email.rendering import MailRenderer
from tests.factories import an_item, an_order, one_of_each, order_created

RENDERER = MailRenderer("The Shop <orders@shop.example>")
STAGES = [type_of(event) for event in HANDLERS]
MARKUP = "<script>alert('1')</script> {{7*7}} {% raw %} ${7*7} & \"'"
SCRIPTS = "Ünïcödé 山田太郎 محمد بن عبد الله שרה 🎉👩‍👩‍👧 \u202eabc"


class Page(HTMLParser):
    """Collects the text of an HTML document, and its elements and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(mail: RenderedMail) -> EmailMessage:
    """The mail as the standard library parses it, without a defect."""
    message = email.message_from_bytes(mail.content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    for part in message.walk():
        assert part.defects == []
        for value in part.values():
            assert value.defects == ()
    return message


def written(event: AnyMilestone) -> EmailMessage:
    return read(RENDERER.render(Mail.about(event)))


def addressee(mail: RenderedMail) -> str:
    """The name in To. Before Python 3.13 `email.policy.default` puts gaps between encoded words."""
    raw = email.message_from_bytes(mail.content)["To"]
    return parseaddr(str(make_header(decode_header(raw))))[0]


def body(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    assert part is not None
    content = part.get_content()
    assert isinstance(content, str)
    return content


def wild(text: str) -> Order:
    """An order that has this text in every field that the customer writes."""
    return an_order(
        reference=text,
        customer=Customer(name=text, email="ana@example.com", locale="ar"),
        items=(an_item(name=text),),
        shipping_address=Address(
            line1=text, line2=text, city=text, state=text, postal_code=text[:64], country="SA"
        ),
    )


def test_the_handler_table_names_every_milestone() -> None:
    assert set(HANDLERS) == set(MILESTONES)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_in_the_handler_table_has_a_text(stage: str) -> None:
    order = an_order()
    event = one_of_each(order)[stage]
    message = written(event)

    assert message["Subject"] == SUBJECTS[stage].format(reference=" WEB-1042")
    assert message["From"] == "The Shop <orders@shop.example>"
    assert message["To"] == "Ana Souza <ana@example.com>"
    assert message["Message-ID"] == f"<{order.id}.{stage}@shop.example>"
    assert message["Date"].datetime == event.time.replace(microsecond=0)
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Content-Language"] == "en"
    assert message["X-Order-Id"] == str(order.id)
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    for subtype in ("plain", "html"):
        shown = body(message, subtype).replace("\N{NO-BREAK SPACE}", " ")
        for expected in ("Ana Souza", "WEB-1042", "Mug", "39.80 BRL", "6.77 BRL", "46.57 BRL", "São Paulo"):
            assert expected in shown, (subtype, expected)


def test_an_address_without_a_postal_code_shows_its_city_alone() -> None:
    address = Address(line1="1 Peak Road", city="Central", postal_code=NO_POSTAL_CODE, country="HK")
    message = written(order_created(an_order(shipping_address=address)))
    assert "\n1 Peak Road\nCentral\nHK\n" in body(message, "plain").replace("\r\n", "\n")
    assert re.search(r"<br>\n<bdi[^>]*>Central</bdi><br>", body(message, "html").replace("\r\n", "\n"))


def test_subjects_differ_from_stage_to_stage() -> None:
    subjects = [written(event)["Subject"] for event in one_of_each().values()]
    assert len(set(subjects)) == len(STAGES)


@pytest.mark.parametrize(
    ("stage", "facts"),
    [
        ("INVOICE_CREATED", ["2026-000001", "22 November 2026"]),
        ("PAYMENT_FAILED", ["The card was declined.", "Nothing was charged"]),
        ("PAYMENT_CONFIRMED", ["46.57 BRL", "2026-000001"]),
        ("SHIPMENT_ERROR", ["We do not ship there.", "To be refunded"]),
        ("SHIPPED", ["RR473124829BR", "Simulated Post"]),
        ("PAYMENT_REFUNDED", ["46.57 BRL", "We do not ship there."]),
    ],
)
def test_a_stage_tells_what_is_new(stage: str, facts: list[str]) -> None:
    message = written(one_of_each()[stage])
    for subtype in ("plain", "html"):
        shown = body(message, subtype).replace("\N{NO-BREAK SPACE}", " ")
        assert all(fact in shown for fact in facts), shown


@pytest.mark.parametrize("form", ["plain", "html"])
def test_the_mail_of_a_refund_says_whether_it_is_the_whole_payment(form: str) -> None:
    event: Any = one_of_each()["PAYMENT_REFUNDED"]
    part = msgspec.structs.replace(event.data.refund, amount=1650)
    partly = msgspec.structs.replace(event, data=msgspec.structs.replace(event.data, refund=part))
    shown = body(written(partly), form).replace("\N{NO-BREAK SPACE}", " ")
    assert "a part of the payment" in shown
    assert "the whole payment" not in shown
    assert "16.50 BRL" in shown
    assert "the whole payment" in body(written(event), form)


@pytest.mark.parametrize("form", ["plain", "html"])
def test_a_payment_that_no_card_could_make_is_not_blamed_on_the_card(form: str) -> None:
    event: Any = one_of_each()["PAYMENT_FAILED"]
    assert "another payment method" in " ".join(body(written(event), form).split())
    for code in OBSTACLES:
        reason = msgspec.structs.replace(event.data.reason, code=code, message="The amount is too small.")
        about = msgspec.structs.replace(event, data=msgspec.structs.replace(event.data, reason=reason))
        said = " ".join(body(written(about), form).split())
        assert "another payment method" not in said
        assert "no card can be charged with this amount in this currency" in said


@pytest.mark.parametrize("form", ["plain", "html"])
def test_a_refund_by_hand_names_its_reference_and_promises_no_card(form: str) -> None:
    event: Any = one_of_each()["PAYMENT_REFUNDED"]
    assert "payment method that you paid with" in " ".join(body(written(event), form).split())
    refund = msgspec.structs.replace(event.data.refund, by_hand=True, provider_reference="SEPA-4711")
    event = msgspec.structs.replace(event, data=msgspec.structs.replace(event.data, refund=refund))
    said = " ".join(body(written(event), form).split())
    assert "by hand, under the reference SEPA-4711" in said
    assert "The money goes to the payment method" not in said


def test_a_failure_without_a_message_has_a_default_reason() -> None:
    for stage, reason in (("PAYMENT_FAILED", "refused"), ("SHIPMENT_ERROR", "No parcel can be sent")):
        event: Any = one_of_each()[stage]
        silent = msgspec.structs.replace(event.data.reason, message="")
        event = msgspec.structs.replace(event, data=msgspec.structs.replace(event.data, reason=silent))
        assert reason in body(written(event), "plain")


def test_an_order_without_reference_tax_and_optional_lines_leaves_no_gaps() -> None:
    order = an_order(reference=None, items=(an_item(tax_rate="0", tax=0, total=3980),))
    message = written(order_created(order))
    assert message["Subject"] == "We have your order"
    for subtype in ("plain", "html"):
        assert "None" not in body(message, subtype)
        assert "Tax" not in body(message, subtype)
    assert "\n\n\n" not in body(message, "plain")


@pytest.mark.parametrize(
    ("currency", "shown"), [("JPY", "4657 JPY"), ("EUR", "46.57 EUR"), ("KWD", "4.657 KWD")]
)
def test_amounts_have_the_decimals_of_their_currency(currency: str, shown: str) -> None:
    text = body(written(order_created(an_order(currency=currency))), "plain")
    assert f"Total: {shown}" in text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("stage", STAGES)
def test_markup_and_template_syntax_are_shown_literally(stage: str) -> None:
    message = written(one_of_each(wild(MARKUP))[stage])
    text, html = body(message, "plain"), body(message, "html")

    assert text.count(MARKUP) >= 6  # not escaped for HTML, as plain text is shown literally
    page = Page(html)
    assert page.text.count(MARKUP) >= 6
    assert {"script", "img", "link", "a"}.isdisjoint(tag for tag, _ in page.elements)
    assert "49" not in re.sub(r"[0-9a-f-]{36}", "", page.text)
    assert MARKUP in message["Subject"]
    assert message["To"].addresses[0].display_name == MARKUP


@pytest.mark.parametrize("stage", STAGES)
def test_every_script_and_direction_is_kept_and_stays_in_its_place(stage: str) -> None:
    mail = RENDERER.render(Mail.about(one_of_each(wild(SCRIPTS))[stage]))
    message = read(mail)
    assert SCRIPTS in message["Subject"]
    assert addressee(mail) == SCRIPTS
    assert SCRIPTS in body(message, "plain")
    html = body(message, "html")
    page = Page(html)
    assert f'<bdi dir="auto" lang="ar">{SCRIPTS}</bdi>' in html
    assert page.elements[0] == ("html", {"lang": "en", "dir": "ltr"})


@pytest.mark.parametrize("newline", ["\r\n", "\n", "\r", "\x00", "\x0b", "\x85", "\u2028"])
def test_line_breaks_and_control_characters_start_no_line_of_their_own(newline: str) -> None:
    text = f"Ana{newline}Bcc: eve@example.com{newline}{newline}PAY HERE"
    mail = RENDERER.render(Mail.about(order_created(wild(text))))
    message = read(mail)

    assert message["Bcc"] is None
    assert [address.addr_spec for address in message["To"].addresses] == ["ana@example.com"]
    assert "\x00" not in body(message, "html") + body(message, "plain")
    lines = body(message, "plain").splitlines()
    assert not any(line.startswith(("Bcc", "PAY")) for line in lines)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=200))
def test_any_name_gives_a_message_that_reads_back(name: str) -> None:
    mail = RENDERER.render(Mail.about(order_created(wild(name))))
    message = read(mail)

    assert set(message.keys()) == {
        *("Date", "From", "To", "Subject", "Message-ID", "Auto-Submitted", "Content-Language"),
        *("X-Order-Id", "MIME-Version", "Content-Type"),
    }
    assert [address.addr_spec for address in message["To"].addresses] == ["ana@example.com"]
    assert len(list(message.iter_parts())) == 2
    assert all(len(line) <= 998 for line in mail.content.split(b"\r\n"))
    assert b"\n" not in mail.content.replace(b"\r\n", b"")
    assert mail.content.isascii()


def test_the_same_event_gives_the_same_bytes() -> None:
    event = order_created()
    first, second = Mail.about(event), Mail.about(event)
    assert RENDERER.render(first).content == RENDERER.render(second).content


@pytest.mark.parametrize(
    ("given_as", "sent_to"),
    [
        ("ana+orders@mail.example.com", "ana+orders@mail.example.com"),
        ("o'brien@example.com", "o'brien@example.com"),
        (
            "ana@straße.de",
            "ana@xn--strae-oqa.de",
        ),  # IDNA 2008; IDNA 2003 made it strasse.de, another domain
        ("пётр@почта.рф", "пётр@почта.рф"),
    ],
)
def test_the_envelope_has_the_customers_address_and_no_other(given_as: str, sent_to: str) -> None:
    customer = Customer(name="Ana", email=given_as)
    mail = RENDERER.render(Mail.about(order_created(an_order(customer=customer))))
    assert mail.recipient == sent_to
    assert f"<{sent_to}>".encode() in mail.content


@pytest.mark.parametrize(
    "unusable",
    [
        *("ana@example.com\r\nBcc: eve@example.com", "a@example.com,b@example.com", "Ana <a@example.com>"),
        *("ana", "ana@", "@example.com", "a b@example.com", "a@b@example.com", "ana@exa mple.com", "ü@ö d"),
    ],
)
def test_an_address_that_is_not_exactly_one_address_is_unusable(unusable: str) -> None:
    order = an_order(customer=Customer(name="Ana", email=unusable))
    with pytest.raises(UnusableAddress):
        RENDERER.render(Mail.about(order_created(order)))


def test_a_sender_without_a_name_is_shown_by_its_domain() -> None:
    renderer = MailRenderer("orders@shop.example")
    message = read(renderer.render(Mail.about(order_created())))
    assert message["From"] == "orders@shop.example"
    assert "shop.example" in body(message, "html")


def test_files_of_mails_sort_by_order_and_stage() -> None:
    first, second = one_of_each(), one_of_each()
    names = [Mail.about(event).name for event in [*first.values(), *second.values()]]
    assert names == sorted(names)
    assert names[0] == f"{first['ORDER_CREATED'].subject}-0-ORDER_CREATED"


def test_a_large_order_is_rendered_completely() -> None:
    items = tuple(an_item(sku=f"S{n}", name="😀" * 200) for n in range(100))
    message = written(OrderCreated.of(order_created(an_order(items=items)).data))
    assert body(message, "html").count("😀" * 200) == 100
