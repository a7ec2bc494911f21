"""The JSON that clients send: an order, read strictly.

Unknown fields, other types and text that is not one visible line are refused. So are card numbers, except in
`sku` and where a checked tax id looks like one. Every limit is that of `events.contracts`, so an order that
can be read can also be announced in an event.
"""

import re
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from events import contracts, money
from events.countries import COUNTRIES
from events.text import ONE_LINE
from services.order import domain, postal, tax_ids
from services.order.card_numbers import holds_card_number, without_card_number
from services.order.email_address import email_address
from services.order.pricing import GivenDiscount, GivenShipping, Line
from services.order.refusal import BrokenRule, OrderRefused
from services.order.single_line import single_line


def _text(text: str) -> str:
    return without_card_number(single_line(text))


_ONE_LINE: Final = Field(description="One line, not blank.", json_schema_extra={"pattern": ONE_LINE})
_NO_CARD_NUMBER: Final = AfterValidator(without_card_number)
Text = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_text), _ONE_LINE]
Code = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_text), _ONE_LINE]
UncheckedCode = Annotated[
    str, StringConstraints(min_length=1, max_length=64), AfterValidator(single_line), _ONE_LINE
]
"""It may hold a card number."""
Note = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_text), _ONE_LINE]
LineId = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,31}$"),
    _NO_CARD_NUMBER,
    Field(description="Names the line within the order.", examples=["mug"]),
]
Email = Annotated[
    str,
    StringConstraints(min_length=3, max_length=254),
    AfterValidator(email_address),
    _NO_CARD_NUMBER,
    Field(json_schema_extra={"format": "email"}),
]
Phone = Annotated[
    str,
    StringConstraints(
        max_length=64,
        pattern=r"^[+(]?[0-9(][0-9 ()/.-]{3,30}[0-9](,? ?(x|ext\.?) ?[0-9]{1,6})?$",
    ),
    _NO_CARD_NUMBER,
    Field(description="Digits, best with the country's code.", examples=["+55 11 98765-4321"]),
]
Locale = Annotated[
    str,
    StringConstraints(max_length=64, pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$"),
    _NO_CARD_NUMBER,
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
    StringConstraints(pattern=r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,4})?$"),
    Field(description="With the currency's number of decimals, or more, up to four.", examples=["19.90"]),
]
Amount = Annotated[
    str,
    StringConstraints(pattern=r"^(0|[1-9][0-9]{0,11})(\.[0-9]{2,3})?$"),
    Field(description="With exactly the currency's number of decimals.", examples=["5.00"]),
]
Rate = Annotated[
    str,
    StringConstraints(pattern=r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$"),
    Field(description="Decimal fraction from 0 to 1.", examples=["0.17"]),
]
Token = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$"),
    _NO_CARD_NUMBER,
    Field(description="The payment provider's token; never card data.", examples=["pm_card_visa"]),
]

_QUANTITY: Final = r"^(0|[1-9][0-9]{0,5})(\.[0-9]{1,3})?$"


def _quantity(given: object) -> int | str:
    """Returns an integer or a decimal string unchanged. Raises PydanticCustomError for anything else."""
    if type(given) is int:
        if given < 1:
            raise PydanticCustomError("too_small", "This must be at least 1.")
        if given > money.MAX_QUANTITY:
            raise PydanticCustomError("too_large", f"This must be at most {money.MAX_QUANTITY}.")
    elif not isinstance(given, str):
        raise PydanticCustomError("wrong_type", "This must be an integer, or a string with a decimal number.")
    elif not re.fullmatch(_QUANTITY, given):
        message = "This must be a decimal number with at most three decimals, as in 0.125."
        raise PydanticCustomError("wrong_format", message)
    return given


Quantity = Annotated[
    int | str,
    PlainValidator(_quantity),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": money.MAX_QUANTITY},
                {"type": "string", "pattern": _QUANTITY},
            ],
            "description": "An integer, or a decimal string with up to three decimals.",
            "examples": [2, "0.125"],
        }
    ),
]

_KEY: Final = "[A-Za-z0-9_.-]{1,40}"


def _metadata(given: object) -> object:
    """Checks the keys first, so that no fault names a key that is not one. Sorts the pairs."""
    if not isinstance(given, dict):
        return given
    if not given:
        return None
    for key in given:
        if not re.fullmatch(_KEY, key):
            message = "A key must have 1 to 40 characters: letters, digits, dots, hyphens and underscores."
            raise PydanticCustomError("wrong_format", message)
        without_card_number(key)
    return dict(sorted(given.items()))


Metadata = Annotated[
    Annotated[
        dict[str, Text], Field(max_length=20, json_schema_extra={"propertyNames": {"pattern": f"^{_KEY}$"}})
    ]
    | None,
    BeforeValidator(_metadata),
    Field(description="The caller's own data."),
]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class NewCustomer(_Strict):
    """The customer who orders, with the address for mails."""

    name: Text
    email: Email
    locale: Locale | None = None
    company: Text | None = None
    phone: Phone | None = None
    tax_id: Annotated[
        UncheckedCode | None,
        Field(description="Of the country that the invoice is addressed to.", examples=["DE136695976"]),
    ] = None


class NewAddress(_Strict):
    """A postal address."""

    line1: Text
    line2: Text | None = None
    city: Text
    state: Annotated[
        Text | None, Field(description="Its code or its name, where the country has states.", examples=["SP"])
    ] = None
    postal_code: Annotated[
        Code | None, Field(description="Required, but for countries that have none.", examples=["01304-001"])
    ] = None
    country: Country
    name: Annotated[Text | None, Field(description="The recipient, where it is not the customer.")] = None
    company: Text | None = None

    def address(self) -> contracts.Address:
        """The address as events have it."""
        return contracts.Address(
            line1=self.line1,
            line2=self.line2,
            city=self.city,
            state=self.state,
            postal_code=self.postal_code or contracts.NO_POSTAL_CODE,
            country=self.country,
            name=self.name,
            company=self.company,
        )


class NewDiscount(_Strict):
    """A discount: either an amount, in the same terms as the prices, or a rate."""

    amount: Amount | None = None
    rate: Rate | None = None
    name: Annotated[Text | None, Field(description="As the customer knows it.", examples=["SUMMER10"])] = None

    def given(self) -> GivenDiscount:
        """The discount as it is priced."""
        return GivenDiscount(self.amount, self.rate, self.name)


class NewItem(_Strict):
    """One line."""

    sku: UncheckedCode
    name: Text
    quantity: Quantity
    unit_price: Price
    tax_rate: Rate = "0"
    id: LineId | None = None
    tax_category: Annotated[
        contracts.TaxCategory | None, Field(description="A code of UNTDID 5305 (EN 16931, BT-151).")
    ] = None
    exemption_reason: Text | None = None
    discount: NewDiscount | None = None


class NewShipping(_Strict):
    """What the shipping costs."""

    name: Text = "Shipping"
    price: Amount
    tax_rate: Rate = "0"
    tax_category: contracts.TaxCategory | None = None
    exemption_reason: Text | None = None


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
_RICH_EXAMPLE: Final[dict[str, Any]] = {
    "reference": "WEB-1043",
    "customer": {
        "name": "Jonas Weber",
        "email": "jonas@example.com",
        "locale": "de-DE",
        "company": "Weber Kaffee GmbH",
        "phone": "+49 711 1234567",
        "tax_id": "DE136695976",
    },
    "shipping_address": {
        "name": "Lager Süd",
        "company": "Weber Kaffee GmbH",
        "line1": "Königstraße 1",
        "city": "Stuttgart",
        "postal_code": "70173",
        "country": "DE",
    },
    "billing_address": {
        "company": "Weber Kaffee GmbH",
        "line1": "Friedrichstraße 10",
        "city": "Berlin",
        "postal_code": "10117",
        "country": "DE",
    },
    "currency": "EUR",
    "prices": "gross",
    "tax_rounding": "rate",
    "items": [
        {
            "id": "mug",
            "sku": "MUG-01",
            "name": "Mug",
            "quantity": 12,
            "unit_price": "9.99",
            "tax_rate": "0.19",
            "discount": {"rate": "0.1", "name": "From ten pieces"},
        },
        {
            "sku": "BEANS-7",
            "name": "Coffee beans by weight, in kg",
            "quantity": "2.125",
            "unit_price": "23.9999",
            "tax_rate": "0.07",
        },
    ],
    "discount": {"amount": "5.00", "name": "Welcome"},
    "shipping": {"name": "Parcel", "price": "4.90", "tax_rate": "0.19"},
    "note": "Please ring twice.",
    "metadata": {"channel": "web", "campaign": "spring-7"},
    "payment_method": "pm_card_visa",
}


class NewOrder(_Strict):
    """An order as the merchant's backend places it; it vouches for the prices."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE, _RICH_EXAMPLE]})

    reference: Annotated[Text | None, Field(description="The caller's own number for it.")] = None
    customer: NewCustomer
    shipping_address: NewAddress
    currency: Currency
    items: Annotated[list[NewItem], Field(min_length=1, max_length=100)]
    payment_method: Annotated[
        Token | None, Field(description="Required, unless the total is 0.", examples=["pm_card_visa"])
    ] = None
    billing_address: Annotated[
        NewAddress | None, Field(description="Where the invoice is addressed to, if it is another address.")
    ] = None
    prices: Annotated[contracts.Prices, Field(description="Without tax, or with it.")] = "net"
    tax_rounding: Annotated[
        contracts.TaxRounding, Field(description="Once for each line, or once for each rate.")
    ] = "line"
    discount: NewDiscount | None = None
    shipping: NewShipping | None = None
    reverse_charge: Annotated[bool, Field(description="The customer owes the tax.")] = False
    note: Annotated[Note | None, Field(description="Appears on the invoice.")] = None
    metadata: Metadata = None

    def fingerprint(self) -> bytes:
        """Hashes the order's content: formatting is ignored, and an omitted field counts as its default.

        The same request has the same hash in every version: fields that a version adds have defaults.
        """
        return sha256(self.model_dump_json(exclude_defaults=True).encode()).digest()

    def placed(self, order_id: UUID, created_at: datetime) -> contracts.Placed:
        """Checks and prices the order. Raises OrderRefused with every rule that it breaks."""
        broken: list[BrokenRule] = []
        shipping_address = self.shipping_address.address()
        broken += postal.broken_rules(shipping_address, "shipping_address")
        billing_address = self.billing_address.address() if self.billing_address else None
        if billing_address:
            broken += postal.broken_rules(billing_address, "billing_address")
        customer = self._customer((billing_address or shipping_address).country, broken)
        try:
            placed = domain.place(
                order_id,
                created_at,
                reference=self.reference,
                customer=customer,
                shipping_address=shipping_address,
                billing_address=billing_address,
                currency=self.currency,
                prices=self.prices,
                tax_rounding=self.tax_rounding,
                lines=self._lines(),
                discount=self.discount.given() if self.discount else None,
                shipping=self._shipping(),
                reverse_charge=self.reverse_charge,
                note=self.note,
                metadata=self.metadata or {},
                payment_method=self.payment_method,
            )
        except OrderRefused as refused:
            raise OrderRefused([*broken, *refused.broken]) from None
        if broken:
            raise OrderRefused(broken)
        return placed

    def _customer(self, country: str, broken: list[BrokenRule]) -> contracts.Customer:
        """The customer, with the tax id checked against the country that the invoice is addressed to."""
        given = self.customer
        tax_id = given.tax_id
        if tax_id is not None:
            try:
                tax_id = tax_ids.compact(tax_id, country)
            except tax_ids.InvalidTaxId:
                broken.append(_CARD_DATA if holds_card_number(tax_id) else _INVALID_TAX_ID)
        return contracts.Customer(
            name=given.name,
            email=given.email,
            locale=given.locale,
            company=given.company,
            phone=given.phone,
            tax_id=tax_id,
        )

    def _lines(self) -> list[Line]:
        return [
            Line(
                item.id or str(place),
                item.sku,
                item.name,
                item.quantity,
                item.unit_price,
                item.tax_rate,
                item.tax_category,
                item.exemption_reason,
                item.discount.given() if item.discount else None,
            )
            for place, item in enumerate(self.items, 1)
        ]

    def _shipping(self) -> GivenShipping | None:
        given = self.shipping
        if given is None:
            return None
        return GivenShipping(
            given.name, given.price, given.tax_rate, given.tax_category, given.exemption_reason
        )


_CARD_DATA: Final = BrokenRule(
    ("customer", "tax_id"), "card_data", "Card data must never be sent: use the payment provider's token."
)
_INVALID_TAX_ID: Final = BrokenRule(
    ("customer", "tax_id"),
    "invalid_tax_id",
    "This is not a tax id of the country that the invoice is addressed to.",
)
