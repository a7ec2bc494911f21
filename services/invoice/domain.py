"""The rules of an invoice: which orders can be invoiced, and its number, its date and the tax it shows."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Final, Self
from zoneinfo import ZoneInfo

from events import contracts, money
from events.contracts import InvoiceCreated, Invoiced, Order, Seller, TaxCategory, Taxed
from services.invoice.arithmetic import adds_up

NUMBER_PATTERN: Final = "^[1-9][0-9]{3}-([0-9]{6}|[1-9][0-9]{6,17})$"

EXAMPLE_SELLER: Final = Seller(name="Example Shop")
"""The seller where the settings name none."""

STANDARD_NOTICES: Final[Mapping[TaxCategory, str]] = {
    "AE": "Reverse charge: the customer owes the tax.",
    "K": "Intra-Community supply: exempt from tax.",
    "G": "Export: exempt from tax.",
    "O": "Outside the scope of tax.",
}
"""What an invoice says about lines of these categories: EU Directive 2006/112, Article 226 (11) and (11a)."""


class NotInvoiceable(ValueError):
    """The order's amounts do not add up, so no invoice over them would be right."""


class NotAnInvoiceNumber(ValueError):
    """An invoice number is a year, a dash, and at least six digits: 2026-000001."""


@dataclass(frozen=True, slots=True, order=True)
class Number:
    """An invoice's number: the seller's year of its issue and its place in that year, from 1, without gaps.

    Written `2026-000001`; the millionth of a year is `2026-1000000`.
    """

    year: int
    serial: int

    def __str__(self) -> str:
        return f"{self.year}-{self.serial:06d}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a number as `str` writes it. Raises NotAnInvoiceNumber for any other form."""
        if not re.fullmatch(NUMBER_PATTERN, text):
            raise NotAnInvoiceNumber(NotAnInvoiceNumber.__doc__)
        year, serial = text.split("-")
        return cls(year=int(year), serial=int(serial))


@dataclass(frozen=True, slots=True)
class TaxLine:
    """Net amount and tax of all lines and the shipping of one tax category and rate, in minor units."""

    category: TaxCategory
    rate: str
    """Decimal fraction in its shortest form: "0.17" is 17 %."""
    net: int
    tax: int
    notices: tuple[str, ...] = ()
    """Why there is no tax, in words: the standard ones of the category, then those of the lines."""


@dataclass(frozen=True, slots=True)
class Invoice:
    """An issued invoice over an order's total. It never changes."""

    number: Number
    issued_at: datetime
    issued_on: date
    """The day of issue in the seller's time zone."""
    seller: Seller | None
    """The seller at the time of issue. None for an invoice that version 1 issued."""
    order: Order

    @property
    def taxes(self) -> list[TaxLine]:
        """Net and tax per rate and category, lowest rate first. They add up to the order's subtotal and tax.

        Sums of the parts' taxes, because the order has rounded them.
        """
        groups: dict[tuple[Decimal, TaxCategory], list[Taxed]] = {}
        for part in self.order.taxed:
            groups.setdefault((Decimal(part.tax_rate), part.category), []).append(part)
        return [
            TaxLine(
                category=category,
                rate=f"{rate.normalize():f}",
                net=sum(part.subtotal for part in parts),
                tax=sum(part.tax for part in parts),
                notices=_notices(category, parts),
            )
            for (rate, category), parts in ((key, groups[key]) for key in sorted(groups))
        ]

    @property
    def notices(self) -> list[str]:
        """What the invoice has to say about its taxes, each sentence once."""
        return list(dict.fromkeys(notice for line in self.taxes for notice in line.notices))

    def created(self, payment_method: str | None) -> InvoiceCreated:
        """The event that announces this invoice, with the payment method that the order was placed with."""
        invoice = contracts.InvoiceDetails(
            number=str(self.number),
            issued_at=self.issued_at,
            issued_on=self.issued_on,
            seller=self.seller,
        )
        return InvoiceCreated.of(Invoiced(order=self.order, invoice=invoice, payment_method=payment_method))


def day_of(moment: datetime, seller: Seller) -> date:
    """The day on the seller's calendar."""
    return moment.astimezone(ZoneInfo(seller.time_zone)).date()


def check_invoiceable(order: Order) -> None:
    """Raises NotInvoiceable if the order's amounts do not agree, or its currency is unknown."""
    try:
        agree = adds_up(order)
    except money.UnknownCurrency as error:
        raise NotInvoiceable(str(error)) from error
    if not agree:
        raise NotInvoiceable(NotInvoiceable.__doc__)


def _notices(category: TaxCategory, parts: Iterable[Taxed]) -> tuple[str, ...]:
    standard = STANDARD_NOTICES.get(category)
    own = (part.exemption_reason for part in parts)
    return tuple(dict.fromkeys(notice for notice in (standard, *own) if notice))
