"""Payments at Stripe of which no answer came settle themselves, charged once, also when a key is forgotten.

The witness is the server's own ledger; time passes for it by its clock, for billing by its table.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final
from uuid import uuid4

import pytest

from events import envelope
from events.contracts import Order, OrderDelayed, PaymentConfirmed, PaymentFailed, PaymentRefunded
from ops.stripe.personality import Behaviour, Pace, Step
from services.billing.domain import Refund
from services.billing.provider import ChargeRequest
from services.billing.stripe import provider as stripe_provider
from services.billing.stripe.provider import StripeProvider
from tests.billing_house import House, invoiced, opened, undeliverable
from tests.factories import an_order
from tests.stripe_desk import StripeDesk, serving_desk

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the SDK's own doing

HOUR: Final = 3600.0
MANY: Final = 100
"""More often than anything is asked in a test."""
LOST_DECLINE: Final = "pm_card_chargeDeclinedLostCard"


@pytest.fixture
async def house(fresh_database: str, service_url: Callable[[str], Awaitable[str]]) -> AsyncIterator[House]:
    async with opened(fresh_database, service_url) as house:
        yield house


@pytest.fixture
async def server() -> AsyncIterator[StripeDesk]:
    async with serving_desk(Pace(processing_seconds=HOUR)) as server:
        yield server


@pytest.fixture
async def stripe(server: StripeDesk) -> AsyncIterator[StripeProvider]:
    async with stripe_provider.connect("sk_test_1", server.url, answer_seconds=1.0) as provider:
        yield provider


async def left_unknown(
    house: House, server: StripeDesk, stripe: StripeProvider, order: Order, step: Step, behaviour: Behaviour
) -> None:
    """The order's payment was asked for 25 hours ago, and nobody knows what came of it."""
    server.ago = 25 * HOUR
    server.fail(order.id, step, *[behaviour] * MANY)
    server.fail(order.id, Step.RETRIEVE, *[Behaviour.ERROR] * MANY)  # nor does anybody when he asks again
    async with house.billing(stripe):
        await house.publish(invoiced(order))
        await house.until("SELECT 1 FROM billing.payments WHERE attempts > 0")
        await server.has_happened(behaviour, order.id)
    server.behave()
    server.ago = 0.0
    await house.age_keys(25)


async def generation(house: House) -> int:
    [row] = await house.rows("SELECT generation FROM billing.payments")
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
    house: House,
    server: StripeDesk,
    stripe: StripeProvider,
    step: Step,
    behaviour: Behaviour,
    intents: list[str],
    generations: int,
) -> None:
    order = an_order()
    await left_unknown(house, server, stripe, order, step, behaviour)
    async with house.billing(stripe):
        event = await house.listener.hears(PaymentConfirmed, order)
    assert server.captured(order.id) == [order.total]
    assert [intent.status for intent in server.of_order(order.id)] == intents
    assert event.data.payment.provider_reference == server.of_order(order.id)[-1].id
    assert await generation(house) == generations


@pytest.mark.parametrize("behaviour", [Behaviour.TIMEOUT_AFTER, Behaviour.PROCESSING])
async def test_a_decline_whose_key_was_forgotten_is_found_and_can_not_be_paid_later(
    house: House, server: StripeDesk, stripe: StripeProvider, behaviour: Behaviour
) -> None:
    order = an_order(payment_method=LOST_DECLINE)
    await left_unknown(house, server, stripe, order, Step.CONFIRM, behaviour)
    async with house.billing(stripe):
        event = await house.listener.hears(PaymentFailed, order)
    assert event.data.reason.code == "lost_card"
    assert [intent.status for intent in server.of_order(order.id)] == ["canceled"]


@pytest.mark.parametrize("behaviour", [Behaviour.TIMEOUT_BEFORE, Behaviour.TIMEOUT_AFTER])
async def test_while_the_key_is_known_the_same_key_finds_the_charge(
    house: House, server: StripeDesk, stripe: StripeProvider, behaviour: Behaviour
) -> None:
    order = an_order()
    server.fail(order.id, Step.CONFIRM, behaviour)
    async with house.billing(stripe):
        await house.publish(invoiced(order))
        await house.listener.hears(PaymentConfirmed, order)
    assert server.captured(order.id) == [order.total]
    assert len(server.of_order(order.id)) == 1
    assert await generation(house) == 1


async def test_what_search_still_shows_as_unpaid_is_asked_for_itself(
    house: House, server: StripeDesk, stripe: StripeProvider
) -> None:
    order = an_order()
    await left_unknown(house, server, stripe, order, Step.CONFIRM, Behaviour.TIMEOUT_AFTER)
    [paid] = server.of_order(order.id)
    server.touch(paid)
    found = await server.search(f"metadata['order_id']:'{order.id}'")
    assert found == [(paid.id, "requires_confirmation")]
    async with house.billing(stripe):
        await house.listener.hears(PaymentConfirmed, order)
    assert server.captured(order.id) == [order.total]


async def test_a_search_that_lags_behind_is_not_believed_that_nothing_was_charged(
    house: House, server: StripeDesk, stripe: StripeProvider
) -> None:
    order = an_order()
    await left_unknown(house, server, stripe, order, Step.CONFIRM, Behaviour.TIMEOUT_AFTER)
    server.ago = HOUR / 2
    await stripe.charge(ChargeRequest(str(uuid4()), uuid4(), uuid4(), 4657, "BRL", "pm_card_visa"))
    server.ago = 0.0
    server.pace.search_seconds = 26 * HOUR
    async with house.billing(stripe):
        await house.until("SELECT 1 FROM billing.payments WHERE last_error ~ 'search lags'")
        server.pace.search_seconds = 60.0
        await house.expire_claims()
        await house.listener.hears(PaymentConfirmed, order)
    assert server.captured(order.id) == [order.total]


async def test_a_refund_that_nobody_answers_delays_its_order_once(
    house: House, server: StripeDesk, stripe: StripeProvider
) -> None:
    order = an_order()
    async with house.billing(stripe) as billing:
        await house.publish(invoiced(order))
        paid = await house.listener.hears(PaymentConfirmed, order)
        server.fail(order.id, Step.REFUND, *[Behaviour.TIMEOUT_BEFORE] * MANY)
        await house.publish(undeliverable(paid))
        await house.until("SELECT 1 FROM billing.refunds WHERE unknowns > 0")
        for tries in (1, 2):
            await house.rows("UPDATE billing.refunds SET waits_since = now() - interval '2 minutes'")
            billing.runners[Refund].sweep_now()
            await house.until("SELECT 1 FROM billing.outbox WHERE type = 'ORDER_DELAYED'")
            await house.expire_claims()
            billing.runners[Refund].sweep_now()
            await house.until("SELECT 1 FROM billing.refunds WHERE unknowns > $1", tries)
    [row] = await house.rows("SELECT body FROM billing.outbox WHERE type = 'ORDER_DELAYED'")
    [delayed] = envelope.decode(row["body"])[0]
    assert isinstance(delayed, OrderDelayed)
    assert (delayed.data.order, delayed.data.delay.stage) == (order, "refund")
    assert (delayed.data.delay.reason.code, delayed.source) == ("no_answer", "/services/billing")


@pytest.mark.parametrize(
    ("behaviour", "generations"),
    [(Behaviour.TIMEOUT_BEFORE, 2), (Behaviour.TIMEOUT_AFTER, 1), (Behaviour.SAVED_ERROR_AFTER, 1)],
)
async def test_a_refund_whose_key_was_forgotten_is_made_once(
    house: House, server: StripeDesk, stripe: StripeProvider, behaviour: Behaviour, generations: int
) -> None:
    order = an_order()
    server.ago = 25 * HOUR
    async with house.billing(stripe):
        await house.publish(invoiced(order))
        paid = await house.listener.hears(PaymentConfirmed, order)
        server.fail(order.id, Step.REFUND, *[behaviour] * MANY)
        server.fail(order.id, Step.LIST_REFUNDS, *[Behaviour.ERROR] * MANY)
        await house.publish(undeliverable(paid))
        await house.until("SELECT 1 FROM billing.refunds WHERE attempts > 0")
        await server.has_happened(behaviour, order.id)
    server.behave()
    server.ago = 0.0
    await house.age_keys(25)
    async with house.billing(stripe):
        await house.listener.hears(PaymentRefunded, order)
    assert server.given_back(order.id) == [order.total]
    [refund] = await house.rows("SELECT generation FROM billing.refunds")
    assert refund["generation"] == generations
