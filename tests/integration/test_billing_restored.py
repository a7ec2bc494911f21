"""Billing after a database restore: it finds the provider's charges, assigns them, and logs unknown ones."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import uuid4

import pytest
from msgspec.structs import replace as changed

from chassis import database
from events.contracts import Order, PaymentConfirmed, PaymentRefunded
from events.errors import Unavailable
from events.transactions import Transactions
from services.billing import recovered_charges, simulated
from services.billing.domain import derive_id
from services.billing.provider import (
    ChargeCaptured,
    ChargeRequest,
    ListedCharge,
    ListingProvider,
    RefundRequest,
    RefundSucceeded,
)
from services.billing.recovered_charges import RecoveredCharge
from services.billing.simulated import SimulatedProvider
from services.billing.stripe import provider as stripe_provider
from services.billing.unknown_charges import UnknownCharges
from tests.billing_harness import Harness, invoiced, open_harness, undeliverable
from tests.factories import an_order
from tests.stripe_server import StripeServer, stripe_server

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the SDK's own doing

KEY_HASH = sha256(b"web-1042").hexdigest()


@pytest.fixture
async def harness(
    fresh_database: str, service_url: Callable[[str], Awaitable[str]]
) -> AsyncIterator[Harness]:
    async with open_harness(fresh_database, service_url) as harness:
        yield harness


@pytest.fixture
async def provider(harness: Harness) -> AsyncIterator[SimulatedProvider]:
    async with simulated.connect(harness.ledger_url) as provider:
        yield provider


@pytest.fixture
async def billing(harness: Harness) -> AsyncIterator[Transactions]:
    async with database.connect(harness.billing_url, pool=2, application="test") as pool:
        yield Transactions(pool)


@pytest.fixture
async def server() -> AsyncIterator[StripeServer]:
    async with stripe_server() as server:
        yield server


@pytest.fixture(params=["simulated", "stripe"])
async def either(
    request: pytest.FixtureRequest, harness: Harness, server: StripeServer
) -> AsyncIterator[ListingProvider]:
    if request.param == "stripe":
        async with stripe_provider.connect("sk_test_1", server.url, answer_seconds=5.0) as provider:
            yield provider
    else:
        async with simulated.connect(harness.ledger_url) as provider:
            yield provider


def a_charge(order: Order, payment_method: str = "pm_card_visa") -> ChargeRequest:
    payment_id = uuid4()
    return ChargeRequest(
        key=f"{payment_id}-1",
        payment_id=payment_id,
        order_id=order.id,
        amount=order.total,
        currency=order.currency,
        payment_method=payment_method,
        order_reference=order.reference,
        key_hash=order.key_hash,
    )


async def listed(provider: ListingProvider, since: datetime | None = None) -> list[ListedCharge]:
    return [charge async for charge in provider.list_charges(since)]


async def forget(harness: Harness) -> None:
    """Empties billing's tables, as a restore of an older database would."""
    await harness.rows("TRUNCATE billing.refunds, billing.payments, billing.inbox, billing.outbox")


# The provider's lists


async def test_the_provider_lists_what_succeeded_with_its_metadata_the_newest_first(
    either: ListingProvider,
) -> None:
    orders = [an_order(key_hash=KEY_HASH), an_order(reference=None)]
    made: list[ChargeCaptured] = []
    for order in orders:
        answer = await either.charge(a_charge(order))
        assert isinstance(answer, ChargeCaptured)
        made.insert(0, answer)
    await either.charge(a_charge(an_order(), "pm_card_chargeDeclined"))
    found = await listed(either)
    assert [charge.reference for charge in found] == [captured.reference for captured in made]
    assert [(charge.order_id, charge.amount, charge.currency) for charge in found] == [
        (order.id, order.total, order.currency) for order in reversed(orders)
    ]
    assert [(charge.order_reference, charge.key_hash) for charge in found] == [
        (None, None),
        ("WEB-1042", KEY_HASH),
    ]
    assert await listed(either, datetime.now(UTC) + timedelta(hours=1)) == []
    assert len(await listed(either, datetime.now(UTC) - timedelta(hours=1))) == 2

    charge = found[0]
    refund_id = uuid4()
    repaid = await either.refund(
        RefundRequest(
            str(refund_id), refund_id, charge.order_id, charge.reference, charge.amount, charge.currency
        )
    )
    assert isinstance(repaid, RefundSucceeded)
    [refund] = [refund async for refund in either.list_refunds()]
    assert (refund.reference, refund.charge_reference) == (repaid.reference, charge.reference)
    assert (refund.amount, refund.refund_id) == (charge.amount, refund_id)


async def test_a_list_of_several_pages_is_complete(
    either: ListingProvider, server: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulated, "PAGE", 7)
    charges = [a_charge(an_order()) for _ in range(105 if either.name == "stripe" else 30)]
    for start in range(0, len(charges), 15):
        await asyncio.gather(*(either.charge(charge) for charge in charges[start : start + 15]))
    found = await listed(either)
    assert len(found) == len(charges)
    assert {charge.payment_id for charge in found} == {charge.payment_id for charge in charges}


async def test_intents_of_others_in_the_same_account_do_not_count(server: StripeServer) -> None:
    async with stripe_provider.connect("sk_test_1", server.url) as stripe:
        charge = a_charge(an_order())
        await stripe.charge(charge)
        [intent] = server.of_order(charge.order_id)
        strange: list[dict[str, str]] = [{}, {"payment_id": "7", "order_id": "8"}]
        ledger = server.api.account.ledger
        with ledger.transaction():
            for number, metadata in enumerate(strange):
                ledger.add_intent(changed(intent, id=f"pi_{number}", metadata=metadata), 0)
        assert [made.reference for made in await listed(stripe)] == [intent.id]


async def test_a_key_that_an_older_version_used_still_finds_its_intent(server: StripeServer) -> None:
    charge = a_charge(an_order(key_hash=KEY_HASH))
    older = replace(charge, order_reference=None, key_hash=None)
    async with stripe_provider.connect("sk_test_1", server.url) as stripe:
        first = await stripe.charge(older)
        assert isinstance(first, ChargeCaptured)
        assert await stripe.charge(charge) == first
    assert server.captured(charge.order_id) == [charge.amount]


# Billing's payments


async def test_a_payment_that_is_made_again_after_a_restore_has_its_old_key(
    harness: Harness, provider: SimulatedProvider
) -> None:
    order = an_order()
    async with harness.billing(provider):
        await harness.publish(invoiced(order))
        first = await harness.listener.wait_for(PaymentConfirmed, order)
        await harness.publish(undeliverable(first))
        refunded = await harness.listener.wait_for(PaymentRefunded, order)
    await forget(harness)
    harness.listener.received.clear()
    async with harness.billing(provider):
        await harness.publish(invoiced(order))
        again = await harness.listener.wait_for(PaymentConfirmed, order)
        assert again.data.payment == first.data.payment
        await harness.publish(undeliverable(again))
        assert (await harness.listener.wait_for(PaymentRefunded, order)).data.refund == refunded.data.refund
    assert await harness.charges(order) == [order.total]


def test_the_ids_of_an_orders_payment_and_refund_are_its_own_and_ordered_in_time() -> None:
    earlier, later = an_order(), an_order()
    ids = [derive_id(order.id, purpose) for order in (earlier, later) for purpose in ("payment", "refund")]
    assert len(set(ids)) == 4
    assert {(made.version, made.variant) for made in ids} == {(7, earlier.id.variant)}
    assert [made.int >> 80 for made in ids[::2]] == [earlier.id.int >> 80, later.id.int >> 80]
    assert derive_id(earlier.id, "payment") == ids[0]


async def test_a_kept_charge_pays_for_one_order_of_the_same_amount(
    harness: Harness, provider: SimulatedProvider, billing: Transactions
) -> None:
    lost = an_order(key_hash=KEY_HASH)
    captured = await provider.charge(a_charge(lost))
    assert isinstance(captured, ChargeCaptured)
    [made] = await listed(provider)
    async with billing() as tx:
        assert await recovered_charges.record_decisions(tx, "simulated", [RecoveredCharge(made, "kept")]) == {
            made.reference
        }
    yen = an_order(key_hash=KEY_HASH, currency="JPY")
    repeats = [an_order(key_hash=KEY_HASH) for _ in range(2)]
    others = [an_order(), an_order(key_hash=sha256(b"web-1043").hexdigest())]
    async with (
        simulated.connect(harness.ledger_url) as second,
        harness.billing(provider),
        harness.billing(second),
    ):
        harness.send(*(invoiced(order) for order in (yen, *others)))
        for order in repeats:
            harness.send(invoiced(order))
        events = [
            await harness.listener.wait_for(PaymentConfirmed, order) for order in (yen, *others, *repeats)
        ]
    taken = [event for event in events if event.data.payment.provider_reference == captured.reference]
    assert len(taken) == 1
    assert taken[0].subject in {order.id for order in repeats}
    [row] = await harness.rows("SELECT taken_by FROM billing.recovered_charges")
    assert row["taken_by"] == taken[0].subject
    charged = [await harness.charges(order) for order in (yen, *others, *repeats)]
    assert sorted(map(len, charged)) == [0, 1, 1, 1, 1]


async def test_an_order_key_that_is_reused_after_its_lifetime_means_another_order(
    harness: Harness, provider: SimulatedProvider, billing: Transactions
) -> None:
    await provider.charge(a_charge(an_order(key_hash=KEY_HASH)))
    [made] = await listed(provider)
    long_ago = replace(
        made, at=datetime.now(UTC) - recovered_charges.ORDER_KEY_LIFETIME - timedelta(minutes=1)
    )
    async with billing() as tx:
        await recovered_charges.record_decisions(tx, "simulated", [RecoveredCharge(long_ago, "kept")])
    order = an_order(key_hash=KEY_HASH)
    async with harness.billing(provider):
        await harness.publish(invoiced(order))
        await harness.listener.wait_for(PaymentConfirmed, order)
    assert await harness.charges(order) == [order.total]


async def test_unknown_charges_are_logged_once_as_an_error(
    harness: Harness, either: ListingProvider, billing: Transactions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "services.billing.unknown_charges")
    known, lost = an_order(), an_order()
    async with harness.billing(either):
        for order in (known, lost):
            await harness.publish(invoiced(order))
            await harness.listener.wait_for(PaymentConfirmed, order)
    await harness.rows("DELETE FROM billing.payments WHERE order_id = $1", lost.id)
    chore = UnknownCharges(either)
    await chore.run(billing)
    [message] = caplog.messages
    assert "1 charges that billing does not know" in message
    assert f"46.57 BRL for order {lost.id}" in message
    assert "orderflow restore" in message
    assert "pm_card_visa" not in message

    await chore.run(billing)
    assert len(caplog.messages) == 1
    await either.charge(a_charge(an_order()))
    await chore.run(billing)
    assert "1 charges" in caplog.messages[1]

    made = await listed(either)
    async with billing() as tx:
        await recovered_charges.record_decisions(
            tx, either.name, [RecoveredCharge(charge, "kept") for charge in made]
        )
    caplog.clear()
    await UnknownCharges(either).run(billing)
    assert caplog.messages == []


async def test_a_second_charge_of_one_payment_is_unknown_too(
    harness: Harness, provider: SimulatedProvider, billing: Transactions, caplog: pytest.LogCaptureFixture
) -> None:
    order = an_order()
    async with harness.billing(provider):
        await harness.publish(invoiced(order))
        await harness.listener.wait_for(PaymentConfirmed, order)
    forgotten = replace(a_charge(order), payment_id=derive_id(order.id, "payment"))
    await provider.charge(forgotten)
    await UnknownCharges(provider).run(billing)
    assert "1 charges" in caplog.text


async def test_the_first_run_is_limited_and_a_run_in_an_outage_is_made_up_for_by_the_next(
    harness: Harness, server: StripeServer, billing: Transactions, caplog: pytest.LogCaptureFixture
) -> None:
    async with stripe_provider.connect("sk_test_1", server.url) as stripe:
        for _ in range(3):
            await stripe.charge(a_charge(an_order()))
        chore = UnknownCharges(stripe, newest=2)
        server.begin_outage()
        with pytest.raises(Unavailable):
            await chore.run(billing)
        server.behave()
        await chore.run(billing)
    assert "2 charges" in caplog.text
