"""The JSON that the invoice API answers: an issued invoice."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, Field

from events import contracts
from events.money import format_amount
from services.invoice.domain import NUMBER_PATTERN, Invoice, TaxLine

Amount = Annotated[
    str,
    Field(
        pattern=r"^(0|[1-9][0-9]*)(\.[0-9]{2,3})?$",
        description="A decimal string with the currency's own number of decimals.",
        examples=["46.57"],
    ),
]
Rate = Annotated[
    str,
    Field(
        pattern=r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$",
        description='A decimal fraction: "0.17" is 17 %.',
        examples=["0.17"],
    ),
]


class Customer(BaseModel):
    """The invoiced customer."""

    name: Annotated[str, Field(examples=["Ana Souza"])]
    email: Annotated[str, Field(examples=["ana@example.com"])]
    locale: Annotated[str | None, Field(description="BCP 47 language tag.", examples=["pt-BR"])]


class Address(BaseModel):
    """Where the parcel goes."""

    line1: Annotated[str, Field(examples=["Rua Augusta 1"])]
    line2: str | None
    city: Annotated[str, Field(examples=["São Paulo"])]
    state: str | None
    postal_code: Annotated[str | None, Field(examples=["01304-001"])]
    country: Annotated[str, Field(description="ISO 3166-1 alpha-2.", examples=["BR"])]


class Line(BaseModel):
    """One line: `total = subtotal + tax`, the tax rounded half up on the line."""

    sku: Annotated[str, Field(examples=["MUG-01"])]
    name: Annotated[str, Field(examples=["Mug"])]
    quantity: Annotated[int, Field(examples=[2])]
    unit_price: Amount
    tax_rate: Rate
    subtotal: Amount
    tax: Amount
    total: Amount

    @classmethod
    def of(cls, item: contracts.Item, currency: str) -> Self:
        """Shows a line of the order."""
        return cls(
            sku=item.sku,
            name=item.name,
            quantity=item.quantity,
            unit_price=format_amount(item.unit_price, currency),
            tax_rate=item.tax_rate,
            subtotal=format_amount(item.subtotal, currency),
            tax=format_amount(item.tax, currency),
            total=format_amount(item.total, currency),
        )


class Tax(BaseModel):
    """The net amount of the lines at one tax rate, and the tax on it."""

    rate: Rate
    net: Amount
    tax: Amount

    @classmethod
    def of(cls, line: TaxLine, currency: str) -> Self:
        """Shows the tax of one rate."""
        return cls(
            rate=line.rate,
            net=format_amount(line.net, currency),
            tax=format_amount(line.tax, currency),
        )


class InvoiceDocument(BaseModel):
    """An issued invoice. It never changes."""

    number: Annotated[
        str,
        Field(
            pattern=NUMBER_PATTERN,
            description="The year of issue and the place in it, without gaps.",
            examples=["2026-000001"],
        ),
    ]
    issued_at: Annotated[datetime, Field(examples=["2026-11-22T09:30:01Z"])]
    order_id: UUID
    reference: Annotated[str | None, Field(description="The caller's own number.", examples=["WEB-1042"])]
    customer: Customer
    shipping_address: Address
    currency: Annotated[str, Field(description="ISO 4217.", examples=["BRL"])]
    items: list[Line]
    subtotal: Amount
    tax: Amount
    taxes: Annotated[list[Tax], Field(description="One for each rate, lowest first: together `tax`.")]
    total: Amount

    @classmethod
    def of(cls, invoice: Invoice) -> Self:
        """Shows an issued invoice."""
        order = invoice.order
        customer, address, currency = order.customer, order.shipping_address, order.currency
        return cls(
            number=str(invoice.number),
            issued_at=invoice.issued_at,
            order_id=order.id,
            reference=order.reference,
            customer=Customer(name=customer.name, email=customer.email, locale=customer.locale),
            shipping_address=Address(
                line1=address.line1,
                line2=address.line2,
                city=address.city,
                state=address.state,
                postal_code=address.shown_postal_code,
                country=address.country,
            ),
            currency=currency,
            items=[Line.of(item, currency) for item in order.items],
            subtotal=format_amount(order.subtotal, currency),
            tax=format_amount(order.tax, currency),
            taxes=[Tax.of(line, currency) for line in invoice.taxes],
            total=format_amount(order.total, currency),
        )
