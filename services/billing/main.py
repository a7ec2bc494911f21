"""Billing as a process: `python -m services.billing.main`."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from chassis.service import Assembly, Service
from chassis.settings import DatabaseUrl, ServiceSettings
from events.commit import Transactions
from services.billing import charging, refunding, simulated
from services.billing.domain import Payment, Refund
from services.billing.handlers import HANDLERS
from services.billing.provider import Provider


class BillingSettings(ServiceSettings):
    """What billing needs to know: who collects the money, and how many may be asked of them at once."""

    payment_provider: Literal["simulated", "stripe"] = "simulated"
    provider_concurrency: Annotated[int, Field(ge=1, le=1000)] = 128
    """Most charges under way at a time, and as many refunds."""
    provider_database_url: DatabaseUrl | None = None
    """The simulated provider's own ledger, with its own role `<database>_provider`."""
    simulated_latency_ms: Annotated[int, Field(ge=0, le=5000)] = 0
    """How long the simulated provider takes for an answer, as a real one does."""
    stripe_api_key: SecretStr | None = None
    stripe_base_url: str | None = None
    """Where Stripe answers; unset, where it really does."""

    @model_validator(mode="after")
    def _has_what_its_provider_needs(self) -> Self:
        if self.payment_provider == "simulated" and not self.provider_database_url:
            raise ValueError("PROVIDER_DATABASE_URL is needed for the simulated payment provider.")
        if self.payment_provider == "stripe" and not self.stripe_api_key:
            raise ValueError("STRIPE_API_KEY is needed for the payment provider Stripe.")
        return self


@asynccontextmanager
async def assemble(settings: BillingSettings, transactions: Transactions) -> AsyncIterator[Assembly]:
    """The payment provider, and the runners that ask it."""
    async with _provider(settings) as provider:
        concurrency = settings.provider_concurrency
        yield Assembly(
            runners={
                Payment: charging.runner(provider, transactions, concurrency=concurrency),
                Refund: refunding.runner(provider, transactions, concurrency=concurrency),
            }
        )


def _provider(settings: BillingSettings) -> AbstractAsyncContextManager[Provider]:
    if settings.payment_provider == "stripe":
        from services.billing import stripe_provider  # noqa: PLC0415  # its SDK is an extra

        assert settings.stripe_api_key
        return stripe_provider.connect(settings.stripe_api_key.get_secret_value(), settings.stripe_base_url)
    assert settings.provider_database_url
    return simulated.connect(settings.provider_database_url, latency=settings.simulated_latency_ms / 1000)


SERVICE = Service("billing", HANDLERS, BillingSettings, assemble)

if __name__ == "__main__":
    from chassis.process import serve  # only a process of its own needs a broker's client and a web server

    serve(SERVICE)
