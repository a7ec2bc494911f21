"""Billing as a process: its settings, and its parts put together."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from pydantic import ValidationError

from chassis.service import open_service
from events.contracts import PaymentConfirmed
from services.billing.main import SERVICE
from services.billing.settings import BillingSettings
from tests.billing_house import House, invoiced, opened
from tests.factories import an_order
from tests.stripe_server import stripe_server


@pytest.fixture
async def house(fresh_database: str, service_url: Callable[[str], Awaitable[str]]) -> AsyncIterator[House]:
    async with opened(fresh_database, service_url) as house:
        yield house


async def pays(house: House, settings: BillingSettings) -> PaymentConfirmed:
    """What the whole service, so set up, announces about an order."""
    order = an_order()
    async with open_service(SERVICE, settings, house.bus) as running:
        participant = asyncio.create_task(running.participant.run())
        await house.publish(invoiced(order))
        event = await house.listener.hears(PaymentConfirmed, order)
        running.participant.stop()
        await participant
    return event


async def test_with_nothing_said_the_simulated_provider_is_asked(house: House) -> None:
    settings = BillingSettings(database_url=house.billing_url, provider_database_url=house.ledger_url)
    event = await pays(house, settings)
    assert event.data.payment.provider == "simulated"


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the stripe SDK's own doing
async def test_stripe_is_asked_where_it_is_chosen(house: House) -> None:
    async with stripe_server() as server:
        settings = BillingSettings.model_validate(
            {
                "database_url": house.billing_url,
                "payment_provider": "stripe",
                "stripe_api_key": "sk_test_1",
                "stripe_base_url": f"{server.url}/",
            }
        )
        event = await pays(house, settings)
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
