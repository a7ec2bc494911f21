"""The settings of the invoice service: those of every service, and the seller's."""

import re
from importlib.resources import files
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from chassis.settings import ServiceSettings
from events.contracts import NO_POSTAL_CODE, Address, Seller
from events.countries import COUNTRIES
from events.text import is_visible_line
from services.invoice.domain import EXAMPLE_SELLER


def _one_line(text: str) -> str:
    if not is_visible_line(text):
        raise ValueError("This must be one line of visible text.")
    return text


def _email(text: str) -> str:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", _one_line(text)):
        raise ValueError("This is not like shop@example.com.")
    return text


def _time_zone(name: str) -> str:
    if name not in (files("tzdata") / "zones").read_text("ascii").split():
        raise ValueError("This is no IANA time zone, such as America/Sao_Paulo.")
    return name


def _country(code: str) -> str:
    if code not in COUNTRIES:
        raise ValueError("This is no ISO 3166-1 alpha-2 country code, such as BR.")
    return code


Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]
Code = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_one_line)]
Email = Annotated[str, Field(min_length=1, max_length=254), AfterValidator(_email)]
Country = Annotated[str, AfterValidator(_country)]
TimeZone = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_time_zone)]


class InvoiceSettings(ServiceSettings):
    """The settings of every service, and the seller, whom each new invoice names as its issuer."""

    seller_name: Text = EXAMPLE_SELLER.name
    seller_line1: Text | None = None
    """The seller's address. It needs line 1, city and country; without any of its fields there is none."""
    seller_line2: Text | None = None
    seller_city: Text | None = None
    seller_state: Text | None = None
    seller_postal_code: Code | None = None
    seller_country: Country | None = None
    """ISO 3166-1 alpha-2."""
    seller_email: Email | None = None
    seller_tax_id: Code | None = None
    """As its country writes it, without separators: `DE136695976`."""
    seller_registration: Text | None = None
    """Number and place of the company's registration: `HRB 12345, Berlin`."""
    seller_time_zone: TimeZone = EXAMPLE_SELLER.time_zone
    """IANA time zone. Invoices are dated there, and the years of their numbers are that calendar's."""

    @model_validator(mode="after")
    def _has_no_part_of_an_address(self) -> Self:
        needed = (self.seller_line1, self.seller_city, self.seller_country)
        others = (self.seller_line2, self.seller_state, self.seller_postal_code)
        if any((*needed, *others)) and not all(needed):
            raise ValueError("A seller's address needs SELLER_LINE1, SELLER_CITY and SELLER_COUNTRY.")
        return self

    @property
    def seller(self) -> Seller:
        """The seller."""
        return Seller(
            name=self.seller_name,
            address=self._address,
            email=self.seller_email,
            tax_id=self.seller_tax_id,
            registration=self.seller_registration,
            time_zone=self.seller_time_zone,
        )

    @property
    def _address(self) -> Address | None:
        if not (self.seller_line1 and self.seller_city and self.seller_country):
            return None
        return Address(
            line1=self.seller_line1,
            line2=self.seller_line2,
            city=self.seller_city,
            state=self.seller_state,
            postal_code=self.seller_postal_code or NO_POSTAL_CODE,
            country=self.seller_country,
        )
