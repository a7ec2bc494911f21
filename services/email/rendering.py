"""Renders mails: fills the templates of a mail's stage, as text and as HTML, into one message."""

from datetime import date
from decimal import Decimal
from email.utils import format_datetime
from functools import lru_cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from events.journey import RANKS
from events.money import format_amount
from services.email import mime
from services.email.domain import Mail, is_about_the_amount, reason_for_customer
from services.email.mailer import RenderedMail

LANGUAGE: Final = "en"
"""The language that the mails are written in."""


class MailRenderer:
    """Renders mails. The same mail gives the same bytes.

    Text from customers and merchants (names, addresses, references) is shown as it is: escaped in HTML, on
    one line in text, in its own direction and language.
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
        headers = (
            f"Date: {format_datetime(mail.event.time)}\r\n"
            f"{self._from}"
            f"{mime.address_header('To', mail.order.customer.name, recipient)}"
            f"{mime.text_header('Subject', mail.subject)}"
            f"Message-ID: {mail.message_id(self.domain)}\r\n"
            f"Auto-Submitted: auto-generated\r\n"
            f"Content-Language: {LANGUAGE}\r\n"
            f"X-Order-Id: {mail.order.id}\r\n"
        )
        bodies = {
            "plain": self._body(self._text[mail.stage], mail),
            "html": self._body(self._html[mail.stage], mail),
        }
        content = mime.multipart_alternative(headers, bodies, boundary=f"=_{mail.id.hex}")
        return RenderedMail(mail.name, self._address, recipient, content)

    def _body(self, template: Template, mail: Mail) -> str:
        data = mail.event.data
        return template.render(data=data, order=data.order, subject=mail.subject, shop=self._shop)


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
        "day": lambda time: _day(time.date()),
        "money": _money,
        "percent": _percent,
        "reason": reason_for_customer,
        "theirs": _theirs if autoescape else str,
    }
    return environment


def _on_one_line(value: Any) -> Any:
    return mime.one_line(value) if type(value) is str else value


@lru_cache(maxsize=256)
def _day(day: date) -> str:
    return f"{day.day} {day:%B %Y}"


@pass_context
def _money(context: Context, minor: int) -> str:
    """An amount in the order's currency, such as `46.57 BRL`, without a place to break the line."""
    currency = context["order"].currency
    return f"{format_amount(minor, currency)}\N{NO-BREAK SPACE}{currency}"


@lru_cache(maxsize=256)
def _percent(rate: str) -> str:
    """A tax rate in per cent: "0.17" is 17%."""
    return f"{(Decimal(rate) * 100).normalize():f}%"


@pass_context
def _theirs(context: Context, text: str) -> Markup:
    """HTML of the customer's own text: in the customer's language, isolated in its own direction."""
    locale = context["order"].customer.locale
    language = f' lang="{escape(locale)}"' if locale else ""
    return Markup(f'<bdi dir="auto"{language}>{escape(mime.one_line(text))}</bdi>')  # noqa: S704  # escaped
