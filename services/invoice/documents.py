"""The JSON that the invoice API answers: an issued invoice."""

from datetime import date, datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, Field

from events import contracts
from events.contracts import Prices, TaxCategory, TaxRounding
from events.money import format_amount, format_price, quantity_in_json
from services.invoice.domain import NUMBER_PATTERN, Invoice, TaxLine

Amount = Annotated[
    str,
    Field(
        pattern=r"^(0|[1-9][0-9]*)(\.[0-9]{2,3})?$",
        description="A decimal string with the currency's own number of decimals.",
        examples=["46.57"],
    ),
]
UnitPrice = Annotated[
    str,
    Field(
        pattern=r"^(0|[1-9][0-9]*)(\.[0-9]{1,4})?$",
        description="A decimal string with at least the currency's own number of decimals.",
        examples=["19.90"],
    ),
]
DecimalQuantity = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]*)\.[0-9]{0,2}[1-9]$")]
Rate = Annotated[
    str,
    Field(
        pattern=r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$",
        description='A decimal fraction: "0.17" is 17 %.',
        examples=["0.17"],
    ),
]
Category = Annotated[
    TaxCategory,
    Field(
        description="Standard rate, zero rate, exempt, reverse charge, intra-Community supply, export, or "
        "outside the scope of tax; the taxes of the Canary Islands, and of Ceuta and Melilla (UNTDID 5305)."
    ),
]
ExemptionReason = Annotated[str | None, Field(description="Why the tax rate is 0, in the order's words.")]


class Customer(BaseModel):
    """The invoiced customer."""

    name: Annotated[str, Field(examples=["Ana Souza"])]
    email: Annotated[str, Field(examples=["ana@example.com"])]
    locale: Annotated[str | None, Field(description="BCP 47 language tag.", examples=["pt-BR"])]
    company: str | None
    phone: str | None
    tax_id: str | None


class PostalAddress(BaseModel):
    """A place in the world."""

    line1: Annotated[str, Field(examples=["Rua Augusta 1"])]
    line2: str | None
    city: Annotated[str, Field(examples=["São Paulo"])]
    state: str | None
    postal_code: Annotated[str | None, Field(examples=["01304-001"])]
    country: Annotated[str, Field(description="ISO 3166-1 alpha-2.", examples=["BR"])]

    @classmethod
    def of(cls, address: contracts.Address) -> "PostalAddress":
        """Shows the seller's address."""
        return PostalAddress(
            line1=address.line1,
            line2=address.line2,
            city=address.city,
            state=address.state,
            postal_code=address.shown_postal_code,
            country=address.country,
        )


class Address(PostalAddress):
    """A place and who is there."""

    name: Annotated[str | None, Field(description="The recipient, where it is not the customer.")]
    company: str | None

    @classmethod
    def of(cls, address: contracts.Address) -> "Address":
        """Shows an address of the order."""
        place = PostalAddress.of(address).model_dump()
        return Address(**place, name=address.name, company=address.company)


class Seller(BaseModel):
    """The issuer of the invoice, as of the day of issue."""

    name: Annotated[str, Field(examples=["Example Shop"])]
    address: PostalAddress | None
    email: str | None
    tax_id: Annotated[str | None, Field(examples=["DE136695976"])]
    registration: Annotated[str | None, Field(examples=["HRB 12345, Berlin"])]
    time_zone: Annotated[str, Field(description="IANA time zone.", examples=["America/Sao_Paulo"])]

    @classmethod
    def of(cls, seller: contracts.Seller) -> Self:
        """Shows the seller."""
        return cls(
            name=seller.name,
            address=PostalAddress.of(seller.address) if seller.address else None,
            email=seller.email,
            tax_id=seller.tax_id,
            registration=seller.registration,
            time_zone=seller.time_zone,
        )


class Discount(BaseModel):
    """A discount that was given: without tax if prices are net, with tax if they are gross."""

    amount: Amount
    rate: Annotated[Rate | None, Field(description="The share that was given, if it was given as a share.")]
    name: Annotated[str | None, Field(examples=["SUMMER10"])]

    @classmethod
    def of(cls, discount: contracts.Discount, currency: str) -> Self:
        """Shows a discount of the order."""
        return cls(amount=format_amount(discount.amount, currency), rate=discount.rate, name=discount.name)


class Line(BaseModel):
    """One line: `total = subtotal + tax`, after all discounts."""

    id: Annotated[str, Field(description="Names the line within the order.", examples=["1"])]
    sku: Annotated[str, Field(examples=["MUG-01"])]
    name: Annotated[str, Field(examples=["Mug"])]
    quantity: Annotated[
        int | DecimalQuantity,
        Field(
            description="An integer, or a decimal string with up to three decimals.", examples=[2, "0.125"]
        ),
    ]
    unit_price: UnitPrice
    discount: Discount | None
    order_discount: Annotated[Amount, Field(description="The line's share of the discount on the order.")]
    tax_rate: Rate
    tax_category: Category
    exemption_reason: ExemptionReason
    subtotal: Amount
    tax: Amount
    total: Amount

    @classmethod
    def of(cls, item: contracts.Item, place: int, currency: str) -> Self:
        """Shows the line at this place of the order, counted from 1."""
        return cls(
            id=item.id or str(place),
            sku=item.sku,
            name=item.name,
            quantity=quantity_in_json(item.quantity, item.quantity_decimals),
            unit_price=format_price(item.unit_price, item.unit_price_decimals, currency),
            discount=Discount.of(item.discount, currency) if item.discount else None,
            order_discount=format_amount(item.order_discount, currency),
            tax_rate=item.tax_rate,
            tax_category=item.category,
            exemption_reason=item.exemption_reason,
            subtotal=format_amount(item.subtotal, currency),
            tax=format_amount(item.tax, currency),
            total=format_amount(item.total, currency),
        )


class Shipping(BaseModel):
    """What the shipping costs: `total = subtotal + tax`. No discount applies to it."""

    name: Annotated[str, Field(examples=["Shipping"])]
    price: Amount
    tax_rate: Rate
    tax_category: Category
    exemption_reason: ExemptionReason
    subtotal: Amount
    tax: Amount
    total: Amount

    @classmethod
    def of(cls, shipping: contracts.Shipping, currency: str) -> Self:
        """Shows the shipping of the order."""
        return cls(
            name=shipping.name,
            price=format_amount(shipping.price, currency),
            tax_rate=shipping.tax_rate,
            tax_category=shipping.category,
            exemption_reason=shipping.exemption_reason,
            subtotal=format_amount(shipping.subtotal, currency),
            tax=format_amount(shipping.tax, currency),
            total=format_amount(shipping.total, currency),
        )


class Tax(BaseModel):
    """The net amount of the lines and the shipping of one tax category and rate, and the tax on it."""

    category: Category
    rate: Rate
    net: Amount
    tax: Amount
    notices: Annotated[list[str], Field(description="Why there is no tax, in words.")]

    @classmethod
    def of(cls, line: TaxLine, currency: str) -> Self:
        """Shows the tax of one category and rate."""
        return cls(
            category=line.category,
            rate=line.rate,
            net=format_amount(line.net, currency),
            tax=format_amount(line.tax, currency),
            notices=list(line.notices),
        )


class InvoiceDocument(BaseModel):
    """An issued invoice. It never changes."""

    number: Annotated[
        str,
        Field(
            pattern=NUMBER_PATTERN,
            description="The seller's year of issue and the place in it, without gaps.",
            examples=["2026-000001"],
        ),
    ]
    issued_at: Annotated[datetime, Field(examples=["2026-11-22T09:30:01Z"])]
    issued_on: Annotated[
        date, Field(description="The day of issue in the seller's time zone.", examples=["2026-11-22"])
    ]
    seller: Annotated[
        Seller | None, Field(description="Null only on invoices that were issued before version 2.")
    ]
    order_id: UUID
    reference: Annotated[str | None, Field(description="The caller's own number.", examples=["WEB-1042"])]
    customer: Customer
    shipping_address: Annotated[Address, Field(description="Where the parcel goes.")]
    billing_address: Annotated[
        Address,
        Field(description="Where the invoice is addressed to; `shipping_address` if no other was given."),
    ]
    currency: Annotated[str, Field(description="ISO 4217.", examples=["BRL"])]
    prices: Annotated[
        Prices, Field(description="Whether unit prices and discounts are without tax or with it.")
    ]
    tax_rounding: Annotated[
        TaxRounding, Field(description="Whether tax is rounded on each line, or once for each rate.")
    ]
    items: list[Line]
    discount: Annotated[
        Discount | None, Field(description="On the order; the lines' `order_discount` add up to it.")
    ]
    shipping: Shipping | None
    subtotal: Amount
    tax: Amount
    taxes: Annotated[
        list[Tax], Field(description="One for each category and rate, lowest first: together `tax`.")
    ]
    total: Amount
    reverse_charge: bool
    notices: Annotated[list[str], Field(description="What the invoice has to say about its taxes.")]
    note: str | None

    @classmethod
    def of(cls, invoice: Invoice) -> Self:
        """Shows an issued invoice."""
        order = invoice.order
        customer, currency = order.customer, order.currency
        return cls(
            number=str(invoice.number),
            issued_at=invoice.issued_at,
            issued_on=invoice.issued_on,
            seller=Seller.of(invoice.seller) if invoice.seller else None,
            order_id=order.id,
            reference=order.reference,
            customer=Customer(
                name=customer.name,
                email=customer.email,
                locale=customer.locale,
                company=customer.company,
                phone=customer.phone,
                tax_id=customer.tax_id,
            ),
            shipping_address=Address.of(order.shipping_address),
            billing_address=Address.of(order.billed_to),
            currency=currency,
            prices=order.prices,
            tax_rounding=order.tax_rounding,
            items=[Line.of(item, place, currency) for place, item in enumerate(order.items, start=1)],
            discount=Discount.of(order.discount, currency) if order.discount else None,
            shipping=Shipping.of(order.shipping, currency) if order.shipping else None,
            subtotal=format_amount(order.subtotal, currency),
            tax=format_amount(order.tax, currency),
            taxes=[Tax.of(line, currency) for line in invoice.taxes],
            total=format_amount(order.total, currency),
            reverse_charge=order.reverse_charge,
            notices=invoice.notices,
            note=order.note,
        )
