"""The JSON that clients send: an order, read strictly.

Unknown fields, other types and text that is not one visible line are refused. Every limit is that of
`events.contracts`, so an order that can be read can also be announced in an event.
"""

from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from events import contracts, money
from services.order import domain
from services.order.countries import COUNTRIES
from services.order.email_address import email_address
from services.order.pricing import Line
from services.order.single_line import ONE_LINE, single_line

_SingleLine = Annotated[
    str,
    AfterValidator(single_line),
    Field(description="One line, not blank.", json_schema_extra={"pattern": ONE_LINE}),
]
Text = Annotated[_SingleLine, StringConstraints(min_length=1, max_length=200)]
Code = Annotated[_SingleLine, StringConstraints(min_length=1, max_length=64)]
Email = Annotated[
    str,
    StringConstraints(min_length=3, max_length=254),
    AfterValidator(email_address),
    Field(json_schema_extra={"format": "email"}),
]
Locale = Annotated[
    str,
    StringConstraints(max_length=64, pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$"),
    Field(examples=["pt-BR"]),
]
Currency = Annotated[
    str, StringConstraints(pattern="^[A-Z]{3}$"), Field(json_schema_extra={"enum": sorted(money.EXPONENTS)})
]
Country = Annotated[
    str, StringConstraints(pattern="^[A-Z]{2}$"), Field(json_schema_extra={"enum": sorted(COUNTRIES)})
]
Price = Annotated[
    str,
    StringConstraints(pattern=r"^(0|[1-9][0-9]{0,11})(\.[0-9]{2,3})?$"),
    Field(description="Net, with exactly the currency's number of decimals.", examples=["19.90"]),
]
Rate = Annotated[
    str,
    StringConstraints(pattern=r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$"),
    Field(description="Decimal fraction from 0 to 1.", examples=["0.17"]),
]
Token = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$"),
    Field(description="The payment provider's token; never card data.", examples=["pm_card_visa"]),
]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class NewCustomer(_Strict):
    """The customer who orders, with the address for mails."""

    name: Text
    email: Email
    locale: Locale | None = None


class NewAddress(_Strict):
    """Where the parcel goes."""

    line1: Text
    line2: Text | None = None
    city: Text
    state: Text | None = None
    postal_code: Annotated[
        Code | None, Field(description="Required, but for countries that have none.", examples=["01304-001"])
    ] = None
    country: Country


class NewItem(_Strict):
    """One line."""

    sku: Code
    name: Text
    quantity: Annotated[int, Field(ge=1, le=100_000)]
    unit_price: Price
    tax_rate: Rate = "0"


_EXAMPLE: Final[dict[str, Any]] = {
    "reference": "WEB-1042",
    "customer": {"name": "Ana Souza", "email": "ana@example.com", "locale": "pt-BR"},
    "shipping_address": {
        "line1": "Rua Augusta 1",
        "city": "São Paulo",
        "postal_code": "01304-001",
        "country": "BR",
    },
    "currency": "BRL",
    "items": [{"sku": "MUG-01", "name": "Mug", "quantity": 2, "unit_price": "19.90", "tax_rate": "0.17"}],
    "payment_method": "pm_card_visa",
}


class NewOrder(_Strict):
    """An order as the merchant's backend places it; it vouches for the prices."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    reference: Annotated[Text | None, Field(description="The caller's own number for it.")] = None
    customer: NewCustomer
    shipping_address: NewAddress
    currency: Currency
    items: Annotated[list[NewItem], Field(min_length=1, max_length=100)]
    payment_method: Token

    def fingerprint(self) -> bytes:
        """Hashes the order's content: formatting is ignored, and an omitted field counts as its default."""
        return sha256(self.model_dump_json(exclude_defaults=True).encode()).digest()

    def placed(self, order_id: UUID, created_at: datetime) -> contracts.Placed:
        """Checks and prices the order. Raises OrderRefused."""
        return domain.place(
            order_id,
            created_at,
            reference=self.reference,
            customer=contracts.Customer(
                name=self.customer.name, email=self.customer.email, locale=self.customer.locale
            ),
            shipping_address=contracts.Address(
                line1=self.shipping_address.line1,
                line2=self.shipping_address.line2,
                city=self.shipping_address.city,
                state=self.shipping_address.state,
                postal_code=self.shipping_address.postal_code or contracts.NO_POSTAL_CODE,
                country=self.shipping_address.country,
            ),
            billing_address=None,
            currency=self.currency,
            prices="net",
            tax_rounding="line",
            lines=[
                Line(str(place), item.sku, item.name, item.quantity, item.unit_price, item.tax_rate)
                for place, item in enumerate(self.items, start=1)
            ],
            discount=None,
            shipping=None,
            reverse_charge=False,
            note=None,
            metadata={},
            payment_method=self.payment_method,
        )
