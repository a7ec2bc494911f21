"""Billing as a whole service: its settings choose the provider that it asks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from pydantic import ValidationError

from chassis.service import open_service
from events.contracts import PaymentConfirmed
from services.billing.main import SERVICE
from services.billing.settings import BillingSettings
from tests.billing_harness import Harness, invoiced, open_harness
from tests.factories import an_order
from tests.stripe_server import stripe_server


@pytest.fixture
async def harness(
    fresh_database: str, service_url: Callable[[str], Awaitable[str]]
) -> AsyncIterator[Harness]:
    async with open_harness(fresh_database, service_url) as harness:
        yield harness


async def confirmed_by(harness: Harness, settings: BillingSettings) -> PaymentConfirmed:
    """Runs the whole service with these settings; returns what it announces about an order."""
    order = an_order()
    async with open_service(SERVICE, settings, harness.bus) as running:
        participant = asyncio.create_task(running.participant.run())
        await harness.publish(invoiced(order))
        event = await harness.listener.wait_for(PaymentConfirmed, order)
        running.participant.stop()
        await participant
    return event


async def test_the_simulated_provider_is_the_default(harness: Harness) -> None:
    settings = BillingSettings(database_url=harness.billing_url, provider_database_url=harness.ledger_url)
    event = await confirmed_by(harness, settings)
    assert event.data.payment.provider == "simulated"


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the stripe SDK's own doing
async def test_the_settings_choose_stripe(harness: Harness) -> None:
    async with stripe_server() as server:
        settings = BillingSettings.model_validate(
            {
                "database_url": harness.billing_url,
                "payment_provider": "stripe",
                "stripe_api_key": "sk_test_1",
                "stripe_base_url": f"{server.url}/",
            }
        )
        event = await confirmed_by(harness, settings)
        [intent] = server.of_order(event.data.order.id)
    assert event.data.payment.provider == "stripe"
    assert event.data.payment.provider_reference == intent.id
    assert server.headers["authorization"] == "Bearer sk_test_1"
    assert "sk_test_1" not in repr(settings)


@pytest.mark.parametrize(
    ("chosen", "missing"), [("simulated", "PROVIDER_DATABASE_URL"), ("stripe", "STRIPE_API_KEY")]
)
def test_a_provider_without_what_it_needs_is_refused_with_a_sentence(chosen: str, missing: str) -> None:
    settings = {"database_url": "postgresql://localhost/x", "payment_provider": chosen, "stripe_api_key": ""}
    with pytest.raises(ValidationError, match=f"{missing} is needed"):
        BillingSettings.model_validate(settings)
