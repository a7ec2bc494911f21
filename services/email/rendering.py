"""Renders mails: fills the templates of a mail's stage, as text and as HTML, into one message."""

from datetime import UTC, date, datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from events.contracts import InvoiceDetails
from events.journey import RANKS
from services.email import mime
from services.email.addresses import address_blocks, imprint
from services.email.bill import Bill, Label, money
from services.email.domain import Mail, is_about_the_amount, reason_for_customer
from services.email.mailer import RenderedMail

LANGUAGE: Final = "en"
"""The language that the mails are written in."""


class MailRenderer:
    """Renders mails. The same mail gives the same bytes.

    Text from customers, merchants and sellers (names, addresses, references, notes) is shown as it is:
    escaped in HTML, on one line in text, in its own direction and language.
    """

    def __init__(self, sender: str) -> None:
        """`sender` is `Name <address>`, with the name of the shop. Raises UnusableAddress."""
        name, self._address = mime.parse_mailbox(sender)
        self.domain = self._address.rpartition("@")[2]
        """The domain of the sender's address and of the Message-IDs."""
        self._shop = name or self.domain
        self._from = mime.address_header("From", name, self._address)
        text, html = _environment("layout.txt"), _environment("layout.html", autoescape=True)
        self._text = {stage: text.get_template(_file(stage)) for stage in RANKS}
        self._html = {stage: html.get_template(_file(stage)) for stage in RANKS}

    def render(self, mail: Mail) -> RenderedMail:
        """The mail as it is sent. Raises mime.UnusableAddress."""
        recipient = mime.envelope_address(mail.recipient)
        subject, order, data = mail.subject, mail.order, mail.event.data
        headers = (
            f"Date: {format_datetime(mail.event.time)}\r\n"
            f"{self._from}"
            f"{mime.address_header('To', order.customer.name, recipient)}"
            f"{mime.text_header('Subject', subject)}"
            f"Message-ID: {mail.message_id(self.domain)}\r\n"
            f"Auto-Submitted: auto-generated\r\n"
            f"Content-Language: {LANGUAGE}\r\n"
            f"X-Order-Id: {order.id}\r\n"
        )
        values = {
            "data": data,
            "order": order,
            "bill": Bill.of(order),
            "addresses": address_blocks(order),
            "subject": subject,
            "shop": self._shop,
        }
        bodies = {
            "plain": self._text[mail.stage].render(values),
            "html": self._html[mail.stage].render(values),
        }
        content = mime.multipart_alternative(headers, bodies, boundary=f"=_{mail.id.hex}")
        return RenderedMail(mail.name, self._address, recipient, content)


def _file(stage: str) -> str:
    return f"{stage.lower()}.jinja"


def _environment(layout: str, *, autoescape: bool = False) -> Environment:
    """The templates in one type of text. A stage has one text for both types; only the layout differs."""
    environment = Environment(
        loader=PackageLoader("services.email"),
        autoescape=autoescape,  # noqa: S701  # off for plain text only
        undefined=StrictUndefined,
        finalize=_on_one_line,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"layout": layout, "language": LANGUAGE}
    environment.tests["about_the_amount"] = is_about_the_amount
    environment.filters |= {
        "day": _day_of,
        "imprint": imprint,
        "isolated": _isolated if autoescape else str,
        "issued_on": _issued_on,
        "label": _label_in_html if autoescape else _label,
        "money": _money,
        "reason": reason_for_customer,
        "theirs": _theirs if autoescape else str,
    }
    return environment


def _on_one_line(value: Any) -> Any:
    return mime.one_line(value) if type(value) is str else value


def _day_of(time: datetime) -> str:
    return _day(time.date())


@lru_cache(maxsize=256)
def _day(day: date) -> str:
    return f"{day.day} {day:%B %Y}"


def _issued_on(invoice: InvoiceDetails) -> str:
    """The day of issue: the seller's, or in version 1 the one in UTC."""
    return _day(invoice.issued_on or invoice.issued_at.astimezone(UTC).date())


@pass_context
def _money(context: Context, minor: int) -> str:
    """An amount in the order's currency."""
    return money(minor, context["order"].currency)


def _label(label: Label) -> str:
    words = f"{label.words} ({label.name})" if label.name else label.words
    return words + label.tax


@pass_context
def _label_in_html(context: Context, label: Label) -> str:
    if not label.name:
        return label.words + label.tax
    return Markup("{} ({}){}").format(label.words, _theirs(context, label.name), label.tax)


@pass_context
def _theirs(context: Context, text: str) -> Markup:
    """HTML of the customer's own text: in the customer's language, isolated in its own direction."""
    return _isolated(text, _lang(context["order"].customer.locale))


@lru_cache(maxsize=256)
def _lang(locale: str | None) -> str:
    return f' lang="{escape(locale)}"' if locale else ""


def _isolated(text: str, attribute: str = "") -> Markup:
    """HTML of text that others wrote, isolated in its own direction."""
    return Markup(f'<bdi dir="auto"{attribute}>{escape(mime.one_line(text))}</bdi>')  # noqa: S704  # escaped
