"""The rules of an invoice: what may be invoiced, how it is numbered, what tax it shows."""

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Self

from events import contracts, money
from events.contracts import InvoiceCreated, Invoiced, Order


class NotInvoiceable(ValueError):
    """The order's amounts do not add up, so there is no invoice that would be right."""


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
        """The number that is written so, and only so. Raises NotAnInvoiceNumber."""
        written = re.fullmatch(r"([1-9][0-9]{3})-([0-9]{6}|[1-9][0-9]{6,17})", text)
        if not written:
            raise NotAnInvoiceNumber(NotAnInvoiceNumber.__doc__)
        return cls(year=int(written[1]), serial=int(written[2]))


@dataclass(frozen=True, slots=True)
class TaxLine:
    """What was sold at one tax rate, in minor units."""

    rate: str
    """Decimal fraction in its shortest form: "0.17" is 17 %."""
    net: int
    tax: int


@dataclass(frozen=True, slots=True)
class Invoice:
    """An issued invoice over an order's total; nothing in it ever changes."""

    number: Number
    issued_at: datetime
    order: Order

    @property
    def taxes(self) -> list[TaxLine]:
        """Net and tax of each rate, lowest rate first: together the order's subtotal and tax.

        Tax was rounded per line, so these are sums of the lines, not calculated anew.
        """
        sums: defaultdict[Decimal, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for item in self.order.items:
            net, tax = sums[Decimal(item.tax_rate)]
            sums[Decimal(item.tax_rate)] = (net + item.subtotal, tax + item.tax)
        return [
            TaxLine(rate=f"{rate.normalize():f}", net=net, tax=tax)
            for rate, (net, tax) in sorted(sums.items())
        ]

    def created(self) -> InvoiceCreated:
        """The news that it was issued."""
        invoice = contracts.InvoiceDetails(number=str(self.number), issued_at=self.issued_at)
        return InvoiceCreated.of(Invoiced(order=self.order, invoice=invoice))


def check_invoiceable(order: Order) -> None:
    """Raises NotInvoiceable for an order whose lines and totals do not agree, or in no known currency."""
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
