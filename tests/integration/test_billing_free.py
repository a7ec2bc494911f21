"""Orders with a total of 0: paid and refunded at once, and no provider hears of them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from msgspec.structs import replace
from uuid_utils.compat import uuid7

from chassis import database
from events.contracts import Order, PaymentConfirmed, PaymentRefunded, ShipmentError
from events.transactions import Transactions
from services.billing import recovered_charges, simulated
from services.billing.provider import (
    ChargeAnswer,
    ChargeCaptured,
    ChargeRequest,
    ListedCharge,
    RefundAnswer,
    RefundRequest,
    RefundSucceeded,
)
from services.billing.recovered_charges import RecoveredCharge
from services.billing.unknown_charges import UnknownCharges
from tests.billing_harness import Harness, invoiced, open_harness, undeliverable
from tests.factories import a_payment, an_item, an_order


@dataclass
class Asked:
    """A provider that grants every request, and notes the order."""

    name: str = "simulated"
    orders: set[object] = field(default_factory=set)

    async def charge(self, request: ChargeRequest) -> ChargeAnswer:
        self.orders.add(request.order_id)
        return ChargeCaptured(f"ch_{request.key}", request.amount, request.currency, datetime.now(UTC))

    look_up_charge = charge

    async def refund(self, request: RefundRequest) -> RefundAnswer:
        self.orders.add(request.order_id)
        return RefundSucceeded(f"re_{request.key}", request.amount, datetime.now(UTC))

    look_up_refund = refund


@pytest.fixture
async def harness(
    fresh_database: str, service_url: Callable[[str], Awaitable[str]]
) -> AsyncIterator[Harness]:
    async with open_harness(fresh_database, service_url) as harness:
        yield harness


def a_free_order() -> Order:
    return an_order(items=(an_item(unit_price=0, subtotal=0, tax=0, total=0),))


@pytest.mark.parametrize("payment_method", [None, "pm_card_visa"])
async def test_a_free_order_is_paid_with_its_invoice_and_no_provider_is_asked(
    harness: Harness, payment_method: str | None
) -> None:
    free, paid, provider = a_free_order(), an_order(), Asked()
    async with harness.billing(provider):
        await harness.publish(invoiced(free, payment_method), invoiced(paid))
        payment = (await harness.listener.wait_for(PaymentConfirmed, free)).data.payment
        await harness.listener.wait_for(PaymentConfirmed, paid)
    assert (payment.provider, payment.provider_reference, payment.amount) == ("none", "none", 0)
    assert provider.orders == {paid.id}
    [row] = await harness.rows("SELECT * FROM billing.payments WHERE order_id = $1", free.id)
    assert (row["state"], row["provider"], row["provider_reference"]) == ("captured", "none", "none")
    assert (str(row["id"]), row["amount"], row["payment_method"]) == (payment.id, 0, None)
    assert row["settled_at"] == row["created_at"]
    [waiting] = await harness.rows("SELECT count(*) FROM billing.payments WHERE settled_at IS NULL")
    assert waiting["count"] == 0


async def test_an_undeliverable_free_order_is_refunded_whoever_is_the_provider(harness: Harness) -> None:
    order, provider = a_free_order(), Asked("another")
    async with harness.billing(provider):
        await harness.publish(invoiced(order, None))
        paid = await harness.listener.wait_for(PaymentConfirmed, order)
        await harness.publish(undeliverable(paid))
        data = (await harness.listener.wait_for(PaymentRefunded, order)).data
    assert (data.refund.provider_reference, data.refund.amount, data.refund.by_hand) == ("none", 0, False)
    assert (data.refund.lines, data.payment) == ((), paid.data.payment)
    assert data.reason
    assert not provider.orders
    [row] = await harness.rows("SELECT * FROM billing.refunds")
    assert (row["state"], row["provider_reference"], row["amount"]) == ("refunded", "none", 0)
    assert (str(row["id"]), row["settled_at"]) == (data.refund.id, row["created_at"])


async def test_a_free_order_is_paid_and_refunded_once_by_two_processes(harness: Harness) -> None:
    order = a_free_order()
    async with harness.billing(Asked()), harness.billing(Asked()):
        await asyncio.gather(*(harness.publish(invoiced(order), invoiced(order)) for _ in range(3)))
        paid = await harness.listener.wait_for(PaymentConfirmed, order)
        await asyncio.gather(*(harness.publish(undeliverable(paid)) for _ in range(3)))
        await harness.listener.wait_for(PaymentRefunded, order)
        await harness.publish(invoiced(order), undeliverable(paid))
    assert [type(event) for event in harness.listener.received[order.id]] == [
        PaymentConfirmed,
        PaymentRefunded,
    ]


async def test_a_refund_that_names_another_payment_of_a_free_order_is_dead(harness: Harness) -> None:
    order, provider = a_free_order(), Asked()
    async with harness.billing(provider):
        await harness.publish(invoiced(order, None))
        data = undeliverable(await harness.listener.wait_for(PaymentConfirmed, order)).data
        for payment in (
            a_payment(order),
            replace(data.payment, amount=4657),
            replace(data.payment, provider="simulated"),
        ):
            await harness.publish(ShipmentError.of(replace(data, payment=payment)))
    parked = await harness.rows("SELECT state, reason FROM billing.parked")
    assert [tuple(row) for row in parked] == [("dead", "AnotherPayment")] * 3
    assert await harness.rows("SELECT FROM billing.refunds") == []
    assert not provider.orders


async def test_a_charge_for_a_free_order_does_not_pay_for_it_and_is_unknown(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "services.billing.unknown_charges")
    order = replace(a_free_order(), key_hash="a" * 64)
    async with (
        simulated.connect(harness.ledger_url) as provider,
        database.connect(harness.billing_url, pool=2, application="test") as pool,
    ):
        kept = ListedCharge("ch_kept", uuid4(), order.id, 4657, "BRL", datetime.now(UTC), key_hash="a" * 64)
        async with Transactions(pool)() as tx:
            await recovered_charges.record_decisions(tx, "simulated", [RecoveredCharge(kept, "kept")])
        async with harness.billing(provider):
            await harness.publish(invoiced(order, None))
            payment = (await harness.listener.wait_for(PaymentConfirmed, order)).data.payment
        assert payment.provider_reference == "none"
        [row] = await harness.rows("SELECT taken_by FROM billing.recovered_charges")
        assert row["taken_by"] is None
        await provider.charge(
            ChargeRequest(f"{payment.id}-1", uuid7(), order.id, 4657, "BRL", "pm_card_visa")
        )
        await UnknownCharges(provider).run(Transactions(pool))
    assert f"46.57 BRL for order {order.id}" in caplog.text
