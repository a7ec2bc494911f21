"""Billing as a process: `python -m services.billing.main`."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from chassis.service import Assembly, Service
from events.transactions import Transactions
from services.billing import charging, refunding, simulated
from services.billing.domain import Payment, Refund
from services.billing.handlers import HANDLERS
from services.billing.provider import PaymentProvider
from services.billing.settings import BillingSettings
from services.billing.unknown_charges import UnknownCharges


@asynccontextmanager
async def assemble(settings: BillingSettings, transactions: Transactions) -> AsyncIterator[Assembly]:
    """The payment provider, the runners that ask it, and who compares its records with ours."""
    async with provider_of(settings) as provider:
        concurrency = settings.provider_concurrency
        yield Assembly(
            chores=[UnknownCharges(provider)],
            runners={
                Payment: charging.runner(provider, transactions, concurrency=concurrency),
                Refund: refunding.runner(provider, transactions, concurrency=concurrency),
            },
        )


def provider_of(settings: BillingSettings) -> AbstractAsyncContextManager[PaymentProvider]:
    """The payment provider that the settings name."""
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
