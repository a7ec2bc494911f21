"""The billing service as a process: `python -m services.billing.main`."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from chassis.service import Assembly, Service
from events.transactions import Transactions
from services.billing import simulated, work
from services.billing.domain import Payment, Refund
from services.billing.handlers import HANDLERS
from services.billing.provider import ListingProvider
from services.billing.settings import BillingSettings
from services.billing.unknown_charges import UnknownCharges


@asynccontextmanager
async def assemble(settings: BillingSettings, transactions: Transactions) -> AsyncIterator[Assembly]:
    """Billing's parts: the runners that ask the payment provider, and the check of its charges."""
    async with connect_provider(settings) as provider:
        concurrency = settings.provider_concurrency
        yield Assembly(
            chores=[UnknownCharges(provider)],
            runners={
                Payment: work.runner_of_payments(provider, transactions, concurrency=concurrency),
                Refund: work.runner_of_refunds(provider, transactions, concurrency=concurrency),
            },
        )


def connect_provider(settings: BillingSettings) -> AbstractAsyncContextManager[ListingProvider]:
    """Connects to the payment provider that the settings name."""
    if settings.payment_provider == "stripe":
        from services.billing.stripe import provider as stripe  # noqa: PLC0415  # its SDK is an extra

        assert settings.stripe_api_key
        return stripe.connect(settings.stripe_api_key.get_secret_value(), settings.stripe_base_url)
    assert settings.provider_database_url
    return simulated.connect(settings.provider_database_url, latency=settings.simulated_latency_ms / 1000)


SERVICE: Final = Service("billing", HANDLERS, BillingSettings, assemble)

if __name__ == "__main__":
    from chassis.process import serve  # only a process of its own needs a broker's client and a web server

    serve(SERVICE)
