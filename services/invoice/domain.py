"""The rules of an invoice: which orders can be invoiced, how invoices are numbered, what tax they show."""

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, Self

from events import contracts, money
from events.contracts import InvoiceCreated, Invoiced, Order

NUMBER_PATTERN: Final = "^[1-9][0-9]{3}-([0-9]{6}|[1-9][0-9]{6,17})$"


class NotInvoiceable(ValueError):
    """The order's amounts do not add up, so no invoice over them would be right."""


class NotAnInvoiceNumber(ValueError):
    """An invoice number is a year, a dash, and at least six digits: 2026-000001."""


@dataclass(frozen=True, slots=True, order=True)
class Number:
    """An invoice's number: the year of its issue (UTC) and its place in that year, from 1, without gaps.

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
    """Net amount and tax of all lines at one tax rate, in minor units."""

    rate: str
    """Decimal fraction in its shortest form: "0.17" is 17 %."""
    net: int
    tax: int


@dataclass(frozen=True, slots=True)
class Invoice:
    """An issued invoice over an order's total. It never changes."""

    number: Number
    issued_at: datetime
    order: Order

    @property
    def taxes(self) -> list[TaxLine]:
        """Net and tax per rate, lowest rate first. They add up to the order's subtotal and tax.

        Sums of the lines' taxes, because tax is rounded per line.
        """
        sums: defaultdict[Decimal, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for item in self.order.items:
            net, tax = sums[Decimal(item.tax_rate)]
            sums[Decimal(item.tax_rate)] = (net + item.subtotal, tax + item.tax)
        return [
            TaxLine(rate=f"{rate.normalize():f}", net=net, tax=tax)
            for rate, (net, tax) in sorted(sums.items())
        ]

    def created(self, payment_method: str | None) -> InvoiceCreated:
        """The event that announces this invoice, with the payment method that the order was placed with."""
        invoice = contracts.InvoiceDetails(number=str(self.number), issued_at=self.issued_at)
        return InvoiceCreated.of(Invoiced(order=self.order, invoice=invoice, payment_method=payment_method))


def check_invoiceable(order: Order) -> None:
    """Raises NotInvoiceable if lines and totals do not agree, or the currency is unknown."""
    items = order.items
    if (
        any(item.total != item.subtotal + item.tax for item in items)
        or order.subtotal != sum(item.subtotal for item in items)
        or order.tax != sum(item.tax for item in items)
        or order.total != order.subtotal + order.tax
    ):
        raise NotInvoiceable(NotInvoiceable.__doc__)
    try:
        money.exponent(order.currency)
    except money.UnknownCurrency as error:
        raise NotInvoiceable(str(error)) from error
