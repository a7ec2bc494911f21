"""Billing's settings, and the payment provider's, which other programs read too."""

from importlib.util import find_spec
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from chassis.settings import DatabaseUrl, ServiceSettings, Settings


def _web_address(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("This is not like https://host or http://host:port.")
    return url


class ProviderSettings(Settings):
    """Names the payment provider, for every program that asks it."""

    payment_provider: Literal["simulated", "stripe"] = "simulated"
    stripe_api_key: SecretStr | None = None
    stripe_base_url: Annotated[str, AfterValidator(_web_address)] | None = None
    """Address of Stripe's API; by default the real one."""

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if self.payment_provider == "stripe" and not self.stripe_api_key:
            raise ValueError("STRIPE_API_KEY is needed for the payment provider Stripe.")
        return self


class BillingSettings(ServiceSettings, ProviderSettings):
    """The settings of every service, and those of billing's payment provider."""

    provider_concurrency: Annotated[int, Field(ge=1, le=1000)] = 128
    """Most charges under way at a time, and most refunds."""
    provider_database_url: Annotated[DatabaseUrl | None, Field(repr=False)] = None
    """The simulated provider's ledger, as its own role `<database>_provider`."""
    provider_database_password: SecretStr | None = None
    simulated_latency_ms: Annotated[int, Field(ge=0, le=5000)] = 0
    """How long the simulated provider takes to answer."""

    @model_validator(mode="after")
    def _has_what_its_provider_needs(self) -> Self:
        if self.payment_provider == "simulated" and not self.provider_database_url:
            raise ValueError("PROVIDER_DATABASE_URL is needed for the simulated payment provider.")
        if self.payment_provider == "stripe" and not find_spec("stripe"):
            raise ValueError("PAYMENT_PROVIDER: stripe needs Stripe's package: pip install 'stripe>=16'.")
        return self
