"""Payments at Stripe without an answer are settled and charged once, also when a key is forgotten.

The tests check the server's own ledger. They move time by the server's clock and by billing's table.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final
from uuid import uuid4

import pytest

from events import envelope
from events.contracts import Order, OrderDelayed, PaymentConfirmed, PaymentFailed, PaymentRefunded
from sandbox.stripe.faults import Behaviour, Step, Timing
from services.billing.domain import Refund
from services.billing.provider import ChargeRequest
from services.billing.stripe import provider as stripe_provider
from services.billing.stripe.provider import StripeProvider
from tests.billing_harness import Harness, invoiced, open_harness, undeliverable
from tests.factories import an_order
from tests.stripe_server import StripeServer, stripe_server

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the SDK's own doing

HOUR: Final = 3600.0
MANY: Final = 100
"""More than the number of requests in a test."""
LOST_DECLINE: Final = "pm_card_chargeDeclinedLostCard"


@pytest.fixture
async def harness(
    fresh_database: str, service_url: Callable[[str], Awaitable[str]]
) -> AsyncIterator[Harness]:
    async with open_harness(fresh_database, service_url) as harness:
        yield harness


@pytest.fixture
async def server() -> AsyncIterator[StripeServer]:
    async with stripe_server(Timing(processing_seconds=HOUR)) as server:
        yield server


@pytest.fixture
async def stripe(server: StripeServer) -> AsyncIterator[StripeProvider]:
    async with stripe_provider.connect("sk_test_1", server.url, answer_seconds=1.0) as provider:
        yield provider


async def left_unknown(
    harness: Harness,
    server: StripeServer,
    stripe: StripeProvider,
    order: Order,
    step: Step,
    behaviour: Behaviour,
    payment_method: str = "pm_card_visa",
) -> None:
    """Leaves the order's payment requested 25 hours ago, with an unknown outcome."""
    server.ago = 25 * HOUR
    server.fail(order.id, step, *[behaviour] * MANY)
    server.fail(order.id, Step.RETRIEVE, *[Behaviour.ERROR] * MANY)  # so asking again does not tell either
    async with harness.billing(stripe):
        await harness.publish(invoiced(order, payment_method))
        await harness.wait_until("SELECT 1 FROM billing.payments WHERE attempts > 0")
        await server.has_happened(behaviour, order.id)
    server.behave()
    server.ago = 0.0
    await harness.age_keys(25)


async def generation(harness: Harness) -> int:
    [row] = await harness.rows("SELECT generation FROM billing.payments")
    return int(row["generation"])


@pytest.mark.parametrize(
    ("step", "behaviour", "intents", "generations"),
    [
        (Step.CREATE, Behaviour.TIMEOUT_BEFORE, ["succeeded"], 2),
        (Step.CREATE, Behaviour.TIMEOUT_AFTER, ["canceled", "succeeded"], 2),
        (Step.CONFIRM, Behaviour.TIMEOUT_BEFORE, ["canceled", "succeeded"], 2),
        (Step.CONFIRM, Behaviour.TIMEOUT_AFTER, ["succeeded"], 1),
        (Step.CONFIRM, Behaviour.RESET, ["succeeded"], 1),
        (Step.CONFIRM, Behaviour.SAVED_ERROR_AFTER, ["succeeded"], 1),
        (Step.CONFIRM, Behaviour.PROCESSING, ["succeeded"], 1),
    ],
)
async def test_a_payment_whose_key_was_forgotten_is_charged_once(
    harness: Harness,
    server: StripeServer,
    stripe: StripeProvider,
    step: Step,
    behaviour: Behaviour,
    intents: list[str],
    generations: int,
) -> None:
    order = an_order()
    await left_unknown(harness, server, stripe, order, step, behaviour)
    async with harness.billing(stripe):
        event = await harness.listener.wait_for(PaymentConfirmed, order)
    assert server.captured(order.id) == [order.total]
    assert [intent.status for intent in server.of_order(order.id)] == intents
    assert event.data.payment.provider_reference == server.of_order(order.id)[-1].id
    assert await generation(harness) == generations


@pytest.mark.parametrize("behaviour", [Behaviour.TIMEOUT_AFTER, Behaviour.PROCESSING])
async def test_a_decline_whose_key_was_forgotten_is_found_and_can_not_be_paid_later(
    harness: Harness, server: StripeServer, stripe: StripeProvider, behaviour: Behaviour
) -> None:
    order = an_order()
    await left_unknown(harness, server, stripe, order, Step.CONFIRM, behaviour, LOST_DECLINE)
    async with harness.billing(stripe):
        event = await harness.listener.wait_for(PaymentFailed, order)
    assert event.data.reason.code == "lost_card"
    assert [intent.status for intent in server.of_order(order.id)] == ["canceled"]


@pytest.mark.parametrize("behaviour", [Behaviour.TIMEOUT_BEFORE, Behaviour.TIMEOUT_AFTER])
async def test_while_the_key_is_known_the_same_key_finds_the_charge(
    harness: Harness, server: StripeServer, stripe: StripeProvider, behaviour: Behaviour
) -> None:
    order = an_order()
    server.fail(order.id, Step.CONFIRM, behaviour)
    async with harness.billing(stripe):
        await harness.publish(invoiced(order))
        await harness.listener.wait_for(PaymentConfirmed, order)
    assert server.captured(order.id) == [order.total]
    assert len(server.of_order(order.id)) == 1
    assert await generation(harness) == 1


async def test_an_intent_that_search_shows_as_unpaid_is_retrieved(
    harness: Harness, server: StripeServer, stripe: StripeProvider
) -> None:
    order = an_order()
    await left_unknown(harness, server, stripe, order, Step.CONFIRM, Behaviour.TIMEOUT_AFTER)
    [paid] = server.of_order(order.id)
    server.touch(paid)
    found = await server.search(f"metadata['order_id']:'{order.id}'")
    assert found == [(paid.id, "requires_confirmation")]
    async with harness.billing(stripe):
        await harness.listener.wait_for(PaymentConfirmed, order)
    assert server.captured(order.id) == [order.total]


async def test_an_empty_result_of_a_search_that_lags_does_not_count(
    harness: Harness, server: StripeServer, stripe: StripeProvider
) -> None:
    order = an_order()
    await left_unknown(harness, server, stripe, order, Step.CONFIRM, Behaviour.TIMEOUT_AFTER)
    server.ago = HOUR / 2
    await stripe.charge(ChargeRequest(str(uuid4()), uuid4(), uuid4(), 4657, "BRL", "pm_card_visa"))
    server.ago = 0.0
    server.timing.search_seconds = 26 * HOUR
    async with harness.billing(stripe):
        await harness.wait_until("SELECT 1 FROM billing.payments WHERE last_error ~ 'search lags'")
        server.timing.search_seconds = 60.0
        await harness.expire_claims()
        await harness.listener.wait_for(PaymentConfirmed, order)
    assert server.captured(order.id) == [order.total]


async def test_a_refund_without_an_answer_delays_its_order_once(
    harness: Harness, server: StripeServer, stripe: StripeProvider
) -> None:
    order = an_order()
    async with harness.billing(stripe) as billing:
        await harness.publish(invoiced(order))
        paid = await harness.listener.wait_for(PaymentConfirmed, order)
        server.fail(order.id, Step.REFUND, *[Behaviour.TIMEOUT_BEFORE] * MANY)
        await harness.publish(undeliverable(paid))
        await harness.wait_until("SELECT 1 FROM billing.refunds WHERE unknowns > 0")
        for tries in (1, 2):
            await harness.rows("UPDATE billing.refunds SET waits_since = now() - interval '2 minutes'")
            billing.runners[Refund].sweep_now()
            await harness.wait_until("SELECT 1 FROM billing.outbox WHERE type = 'ORDER_DELAYED'")
            await harness.expire_claims()
            billing.runners[Refund].sweep_now()
            await harness.wait_until("SELECT 1 FROM billing.refunds WHERE unknowns > $1", tries)
    [row] = await harness.rows("SELECT body FROM billing.outbox WHERE type = 'ORDER_DELAYED'")
    [delayed] = envelope.decode(row["body"])[0]
    assert isinstance(delayed, OrderDelayed)
    assert (delayed.data.order, delayed.data.delay.stage) == (order, "refund")
    assert (delayed.data.delay.reason.code, delayed.source) == ("no_answer", "/services/billing")


@pytest.mark.parametrize(
    ("behaviour", "generations"),
    [(Behaviour.TIMEOUT_BEFORE, 2), (Behaviour.TIMEOUT_AFTER, 1), (Behaviour.SAVED_ERROR_AFTER, 1)],
)
async def test_a_refund_whose_key_was_forgotten_is_made_once(
    harness: Harness, server: StripeServer, stripe: StripeProvider, behaviour: Behaviour, generations: int
) -> None:
    order = an_order()
    server.ago = 25 * HOUR
    async with harness.billing(stripe):
        await harness.publish(invoiced(order))
        paid = await harness.listener.wait_for(PaymentConfirmed, order)
        server.fail(order.id, Step.REFUND, *[behaviour] * MANY)
        server.fail(order.id, Step.LIST_REFUNDS, *[Behaviour.ERROR] * MANY)
        await harness.publish(undeliverable(paid))
        await harness.wait_until("SELECT 1 FROM billing.refunds WHERE attempts > 0")
        await server.has_happened(behaviour, order.id)
    server.behave()
    server.ago = 0.0
    await harness.age_keys(25)
    async with harness.billing(stripe):
        await harness.listener.wait_for(PaymentRefunded, order)
    assert server.given_back(order.id) == [order.total]
    [refund] = await harness.rows("SELECT generation FROM billing.refunds")
    assert refund["generation"] == generations
