"""Billing's promises about money, on real PostgreSQL, checked against the provider's own ledger."""

import asyncio
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from uuid_utils.compat import uuid7

from events import envelope
from events.bus import Message
from events.contracts import Order, PaymentConfirmed, PaymentFailed, PaymentRefunded
from events.errors import UnknownOutcome
from sandbox.stripe.faults import Behaviour, Step, Timing
from services.billing import simulated
from services.billing.domain import Payment
from services.billing.provider import ChargeAnswer, ChargeRequest, Provider, RefundAnswer, RefundRequest
from services.billing.simulated import DECLINE_CODES, SimulatedProvider
from services.billing.stripe import provider as stripe_provider
from tests.billing_harness import Harness, Listener, invoiced, make_bus, open_harness, undeliverable
from tests.factories import a_payment, an_item, an_order, one_of_each
from tests.stripe_server import stripe_server


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


async def paid(harness: Harness, order: Order, payment_method: str = "pm_card_visa") -> PaymentConfirmed:
    await harness.publish(invoiced(order, payment_method))
    return await harness.listener.wait_for(PaymentConfirmed, order)


ORDERS = [
    an_order(),
    an_order(currency="JPY", items=(an_item(subtotal=500, tax=50, total=550),)),
    an_order(currency="KWD", items=(an_item(subtotal=5124, tax=1, total=5125), an_item(total=4655))),
]


async def test_what_is_captured_is_the_orders_total(harness: Harness, provider: SimulatedProvider) -> None:
    async with harness.billing(provider):
        for order in ORDERS:
            event = await paid(harness, order)
            assert event.data.order == order
            assert event.data.payment.amount == order.total
            [charge] = await harness.rows("SELECT * FROM provider.charges WHERE order_id = $1", order.id)
            assert (charge["amount"], charge["currency"]) == (order.total, order.currency)
            assert charge["id"] == event.data.payment.provider_reference
            assert str(charge["payment_id"]) == event.data.payment.id


async def test_a_decline_is_announced_with_its_reason_and_nothing_is_charged(
    harness: Harness, provider: SimulatedProvider
) -> None:
    reasons = {**DECLINE_CODES, "pm_canary_4711": "payment_method_unknown"}
    orders = {method: an_order() for method in reasons}
    async with harness.billing(provider):
        await harness.publish(*(invoiced(order, method) for method, order in orders.items()))
        for method, order in orders.items():
            event = await harness.listener.wait_for(PaymentFailed, order)
            assert (event.data.reason.code, event.data.reason.stage) == (reasons[method], "payment")
            assert event.data.reason.message
            assert method not in event.data.reason.message
    assert await harness.rows("SELECT 1 FROM provider.charges WHERE status = 'succeeded'") == []


async def test_an_invoice_delivered_again_is_not_charged_again(
    harness: Harness, provider: SimulatedProvider
) -> None:
    order = an_order()
    first, under_another_id = invoiced(order), invoiced(order)
    async with harness.billing(provider):
        await paid(harness, order)
        await harness.publish(first, under_another_id)
        [message] = envelope.messages([first])
        await harness.deliver(message)
    assert await harness.charges(order) == [order.total]
    assert len(harness.listener.received[order.id]) == 1


async def test_two_invoices_of_one_order_in_one_batch_are_charged_once(
    harness: Harness, provider: SimulatedProvider
) -> None:
    order = an_order()
    async with harness.billing(provider):
        await harness.publish(invoiced(order), invoiced(order))
        await harness.listener.wait_for(PaymentConfirmed, order)
    assert await harness.charges(order) == [order.total]
    assert len(harness.listener.received[order.id]) == 1


async def test_two_processes_that_hold_the_same_payments_charge_and_announce_once(
    harness: Harness, provider: SimulatedProvider
) -> None:
    orders = [an_order() for _ in range(30)]  # fewer than a process performs at a time
    asked: defaultdict[str, list[asyncio.Event]] = defaultdict(lambda: [asyncio.Event(), asyncio.Event()])

    async with simulated.connect(harness.ledger_url) as other:
        first, second = AnswersTogether(provider, asked, 0), AnswersTogether(other, asked, 1)
        async with harness.billing(first), harness.billing(second):
            for order in orders:
                harness.send(invoiced(order))
            while not all(len(harness.listener.received[order.id]) for order in orders):
                await harness.expire_claims()
                await asyncio.sleep(0.1)
    for order in orders:
        assert await harness.charges(order) == [order.total]
        assert len({event.id for event in harness.listener.received[order.id]}) == 1
    assert all(one.is_set() and two.is_set() for one, two in asked.values())


async def test_a_refund_requested_many_times_in_two_processes_is_made_once(
    harness: Harness, provider: SimulatedProvider
) -> None:
    order = an_order()
    async with (
        simulated.connect(harness.ledger_url) as other,
        harness.billing(provider),
        harness.billing(other),
    ):
        event = await paid(harness, order)
        await asyncio.gather(*(harness.publish(undeliverable(event)) for _ in range(4)))
        refunded = await harness.listener.wait_for(PaymentRefunded, order)
        await harness.publish(undeliverable(event))
    assert refunded.data.refund.amount == order.total
    assert refunded.data.payment == event.data.payment
    assert [type(event) for event in harness.listener.received[order.id]] == [
        PaymentConfirmed,
        PaymentRefunded,
    ]
    [refund] = await harness.rows("SELECT * FROM provider.refunds")
    assert refund["amount"] == order.total
    assert refund["charge_id"] == event.data.payment.provider_reference


async def test_a_refund_of_a_payment_that_was_never_captured_is_dead_with_its_reason(
    harness: Harness, provider: SimulatedProvider
) -> None:
    declined, good = an_order(), an_order()
    unknown = one_of_each()["SHIPMENT_ERROR"]
    async with harness.billing(provider):
        confirmed = await paid(harness, good)
        await harness.publish(invoiced(declined, "pm_card_chargeDeclined"))
        failed = await harness.listener.wait_for(PaymentFailed, declined)
        forged = one_of_each(failed.data.order)["SHIPMENT_ERROR"]
        await harness.publish(unknown, undeliverable(confirmed), forged)
        await harness.listener.wait_for(PaymentRefunded, good)
    parked = await harness.rows("SELECT id, state, last_error FROM billing.parked")
    assert {(row["id"], row["state"]) for row in parked} == {(unknown.id, "dead"), (forged.id, "dead")}
    assert all("nothing to refund" in row["last_error"] for row in parked)
    assert [row["amount"] for row in await harness.rows("SELECT amount FROM provider.refunds")] == [
        good.total
    ]


async def test_a_refund_that_names_another_payment_than_the_captured_one_is_dead(
    harness: Harness, provider: SimulatedProvider
) -> None:
    order, victim = an_order(), an_order()
    async with harness.billing(provider):
        event, of_victim = await paid(harness, order), await paid(harness, victim)
        for payment in (a_payment(order), of_victim.data.payment):
            data = undeliverable(event).data
            forged = type(undeliverable(event)).of(
                type(data)(order=data.order, invoice=data.invoice, payment=payment, reason=data.reason)
            )
            await harness.publish(forged)
    assert [row["state"] for row in await harness.rows("SELECT state FROM billing.parked")] == [
        "dead",
        "dead",
    ]
    assert await harness.rows("SELECT * FROM provider.refunds") == []


async def test_a_process_killed_between_the_providers_answer_and_its_commit_charges_once(
    harness: Harness, provider: SimulatedProvider
) -> None:
    order = an_order()
    locked = asyncio.Event()
    release = asyncio.Event()

    async def hold_back_announcements() -> None:
        """Locks the outbox: handling an invoice writes no event, but settling its payment does and waits."""
        async with harness.connected() as connection, connection.transaction():
            await connection.execute("LOCK TABLE billing.outbox IN EXCLUSIVE MODE")
            locked.set()
            await release.wait()

    holding = asyncio.create_task(hold_back_announcements())
    await locked.wait()
    [message] = envelope.messages([invoiced(order)])
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.test_billing_journeys",
        harness.billing_url,
        harness.ledger_url,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": ""},
        stdin=asyncio.subprocess.PIPE,
    )
    assert child.stdin
    child.stdin.write(message.body)
    child.stdin.close()
    await harness.wait_until("SELECT 1 FROM provider.charges WHERE order_id = $1", order.id)
    child.kill()
    assert await child.wait() < 0
    release.set()
    await holding
    [payment] = await harness.rows("SELECT state FROM billing.payments")
    assert payment["state"] == "pending"
    await harness.expire_claims()
    async with harness.billing(provider):
        event = await harness.listener.wait_for(PaymentConfirmed, order)
    assert event.data.payment.amount == order.total
    assert await harness.charges(order) == [order.total]
    assert len(harness.listener.received[order.id]) == 1


async def test_connections_that_break_at_any_moment_cost_no_payment_and_no_second_charge(
    harness: Harness, provider: SimulatedProvider
) -> None:
    orders = [an_order() for _ in range(60)]

    async def break_connections() -> None:
        query = """
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND usename ~ '_(billing|provider)$' AND random() < 0.5"""
        broken = 0
        while broken < 30:
            broken += len(await harness.rows(query))
            await asyncio.sleep(0.02)

    async with harness.billing(provider):
        breaking = asyncio.create_task(break_connections())
        for order in orders:
            await harness.publish(invoiced(order))
        await breaking
        await harness.expire_claims()
        for order in orders:
            await harness.listener.wait_for(PaymentConfirmed, order)
    for order in orders:
        assert await harness.charges(order) == [order.total]
        assert len({event.id for event in harness.listener.received[order.id]}) == 1
    assert await harness.rows("SELECT 1 FROM billing.payments WHERE state <> 'captured'") == []


@dataclass
class LostAnswers:
    """A provider whose answers are lost. Without `behind`, its requests are lost too."""

    behind: Provider | None
    name: str = "simulated"

    async def charge(self, request: ChargeRequest) -> ChargeAnswer:
        if self.behind:
            await self.behind.charge(request)
        raise UnknownOutcome("The answer was lost.")

    async def look_up_charge(self, request: ChargeRequest) -> ChargeAnswer:
        raise UnknownOutcome("The answer was lost.")

    async def refund(self, request: RefundRequest) -> RefundAnswer:
        if self.behind:
            await self.behind.refund(request)
        raise UnknownOutcome("The answer was lost.")

    async def look_up_refund(self, request: RefundRequest) -> RefundAnswer:
        raise UnknownOutcome("The answer was lost.")


@dataclass
class AnswersTogether:
    """Answers a process only when the other process has made the same request."""

    behind: Provider
    asked: Mapping[str, Sequence[asyncio.Event]]
    """By key: whether the one and the other process has made the request."""
    number: int
    name: str = "simulated"

    async def charge(self, request: ChargeRequest) -> ChargeAnswer:
        answer = await self.behind.charge(request)
        self.asked[request.key][self.number].set()
        await self.asked[request.key][1 - self.number].wait()
        return answer

    async def look_up_charge(self, request: ChargeRequest) -> ChargeAnswer:
        return await self.behind.look_up_charge(request)

    async def refund(self, request: RefundRequest) -> RefundAnswer:
        return await self.behind.refund(request)

    async def look_up_refund(self, request: RefundRequest) -> RefundAnswer:
        return await self.behind.look_up_refund(request)


@pytest.mark.parametrize("was_charged", [True, False])
async def test_a_key_that_may_be_forgotten_is_looked_up_and_renewed_only_if_nothing_was_charged(
    harness: Harness, provider: SimulatedProvider, was_charged: bool
) -> None:
    order = an_order()
    async with harness.billing(LostAnswers(provider if was_charged else None)):
        await harness.publish(invoiced(order))
        await harness.wait_until("SELECT 1 FROM billing.payments WHERE attempts > 0")
    await harness.age_keys(25)
    async with harness.billing(provider):
        event = await harness.listener.wait_for(PaymentConfirmed, order)
    assert await harness.charges(order) == [order.total]
    [row] = await harness.rows("SELECT key FROM provider.charges")
    assert row["key"] == f"{event.data.payment.id}-{1 if was_charged else 2}"


async def test_between_its_last_use_and_its_look_up_a_key_is_not_used(
    harness: Harness, provider: SimulatedProvider
) -> None:
    order = an_order()
    async with harness.billing(LostAnswers(None)):
        await harness.publish(invoiced(order))
        await harness.wait_until("SELECT 1 FROM billing.payments WHERE attempts > 0")
    await harness.age_keys(23.5)
    [before] = await harness.rows("SELECT attempts FROM billing.payments")
    async with harness.billing(provider):
        await harness.wait_until("SELECT 1 FROM billing.payments WHERE attempts > $1", before["attempts"])
    assert await harness.charges(order) == []
    [row] = await harness.rows("SELECT state, generation, last_failure FROM billing.payments")
    assert tuple(row) == ("pending", 1, "unknown"), "the customer may have paid, and is told so"


@pytest.mark.parametrize("was_made", [True, False])
async def test_a_refund_whose_key_may_be_forgotten_is_looked_up_and_made_once(
    harness: Harness, provider: SimulatedProvider, was_made: bool
) -> None:
    order = an_order()
    async with harness.billing(provider):
        event = await paid(harness, order)
    async with harness.billing(LostAnswers(provider if was_made else None)):
        await harness.publish(undeliverable(event))
        await harness.wait_until("SELECT 1 FROM billing.refunds WHERE attempts > 0")
    await harness.age_keys(25)
    async with harness.billing(provider):
        refunded = await harness.listener.wait_for(PaymentRefunded, order)
    [row] = await harness.rows("SELECT key, amount FROM provider.refunds")
    assert row["amount"] == order.total
    assert row["key"] == f"{refunded.data.refund.id}-{1 if was_made else 2}"


async def test_a_refund_waits_for_the_provider_that_has_the_money(
    harness: Harness, provider: SimulatedProvider
) -> None:
    order = an_order()
    async with harness.billing(provider):
        event = await paid(harness, order)
    async with harness.billing(LostAnswers(None, name="another")):
        await harness.publish(undeliverable(event))
        await harness.wait_until("SELECT 1 FROM billing.refunds WHERE attempts > 0")
    [refund] = await harness.rows("SELECT last_error FROM billing.refunds")
    assert "simulated has the money" in refund["last_error"]
    await harness.expire_claims()
    async with harness.billing(provider):
        await harness.listener.wait_for(PaymentRefunded, order)


async def test_an_amount_or_currency_that_can_not_be_charged_is_the_reason_of_the_decline(
    harness: Harness, provider: SimulatedProvider
) -> None:
    """The order service refuses such orders today. These are from a version that knew no limits."""
    orders = {
        "amount_too_small": an_order(currency="EUR", items=(an_item(subtotal=40, tax=0, total=40),)),
        "currency_unsupported": an_order(currency="IRR"),
    }
    async with harness.billing(provider):
        await harness.publish(*(invoiced(order) for order in orders.values()))
        for code, order in orders.items():
            reason = (await harness.listener.wait_for(PaymentFailed, order)).data.reason
            assert reason.code == code
            assert "card" not in reason.message


async def refund_rows(harness: Harness) -> list[tuple[str, int, str | None]]:
    rows = await harness.rows("SELECT state, generation, last_error FROM billing.refunds")
    return [(row["state"], row["generation"], row["last_error"]) for row in rows]


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the stripe SDK's own doing
async def test_a_refund_that_fails_is_made_under_the_next_key_and_announced_once(harness: Harness) -> None:
    order = an_order()
    async with (
        stripe_server(Timing(failing_refunds=2)) as server,
        stripe_provider.connect("sk_test_1", server.url) as provider,
        harness.billing(provider),
    ):
        await harness.publish(undeliverable(await paid(harness, order, "pm_card_refundFail")))
        for generation in (2, 3):  # each try waits for its pause
            await harness.wait_until("SELECT 1 FROM billing.refunds WHERE generation = $1", generation)
            [row] = await harness.rows(
                "SELECT claimed_until - now() AS pause, last_error FROM billing.refunds"
            )
            assert row["pause"].total_seconds() > 30
            assert "expired_or_canceled_card" in row["last_error"]
            assert [type(event) for event in harness.listener.received[order.id]] == [PaymentConfirmed]
            await harness.expire_claims()
        refunded = await harness.listener.wait_for(PaymentRefunded, order)
        assert server.given_back(order.id) == [order.total]
        keys = [key for path, key in server.requests if path == "/v1/refunds" and key]
    assert keys == [f"{refunded.data.refund.id}-{generation}" for generation in (1, 2, 3)]
    assert not refunded.data.refund.by_hand


async def test_a_refund_that_always_fails_waits_for_an_operator_and_a_replay_asks_under_a_new_key(
    harness: Harness, provider: SimulatedProvider
) -> None:
    order = an_order()
    async with harness.billing(provider):
        await harness.publish(undeliverable(await paid(harness, order, "pm_card_refundFail")))
        for generation in (2, 3, 4):
            await harness.wait_until("SELECT 1 FROM billing.refunds WHERE generation = $1", generation)
            await harness.expire_claims()
        await harness.wait_until("SELECT 1 FROM billing.refunds WHERE state = 'dead'")
        [(_, generation, error)] = await refund_rows(harness)
        assert generation == 5
        assert error
        assert "has failed" in error
        await harness.rows(  # as `dead replay` would do days later
            "UPDATE billing.refunds SET state = 'pending', attempts = 0, claimed_until = now(), "
            "first_tried_at = now() - interval '3 days'"
        )
        await harness.wait_until("SELECT 1 FROM billing.refunds WHERE state = 'dead'")
        assert [type(event) for event in harness.listener.received[order.id]] == [PaymentConfirmed]
    keys = [row["key"] for row in await harness.rows("SELECT key FROM provider.refunds ORDER BY created_at")]
    assert len(set(keys)) == len(keys) == 5


async def test_a_payment_that_somebody_else_refunded_waits_for_an_operator_at_once(
    harness: Harness, provider: SimulatedProvider
) -> None:
    order = an_order()
    async with harness.billing(provider):
        event = await paid(harness, order)
        other, reference = uuid7(), event.data.payment.provider_reference
        await provider.refund(
            RefundRequest(str(other), other, order.id, reference, order.total, order.currency)
        )
        await harness.publish(undeliverable(event))
        await harness.wait_until("SELECT 1 FROM billing.refunds WHERE state = 'dead' AND attempts = 0")
    [(_, _, error)] = await refund_rows(harness)
    assert error
    assert "less is left" in error


async def test_a_pending_refund_is_announced_when_it_is_made(
    harness: Harness, provider: SimulatedProvider
) -> None:
    order = an_order()
    async with harness.billing(provider):
        await harness.publish(undeliverable(await paid(harness, order, "pm_card_pendingRefund")))
        await harness.wait_until("SELECT 1 FROM billing.refunds WHERE attempts > 0")
        await harness.expire_claims()
        await harness.listener.wait_for(PaymentRefunded, order)
    assert len(await harness.rows("SELECT 1 FROM provider.refunds")) == 1


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the stripe SDK's own doing
async def test_at_stripe_every_fault_ends_in_one_charge_of_the_total_and_one_refund(harness: Harness) -> None:
    async with (
        stripe_server() as server,
        stripe_provider.connect("sk_test_1", server.url, answer_seconds=0.5) as provider,
        harness.billing(provider),
    ):

        async def go_through(fault: Behaviour) -> None:
            order = an_order()
            server.fail(order.id, Step.CONFIRM, fault)
            event = await paid(harness, order)
            assert event.data.payment.provider == "stripe"
            assert server.captured(order.id) == [order.total], fault
            server.fail(order.id, Step.REFUND, fault)
            await harness.publish(undeliverable(event))
            await harness.listener.wait_for(PaymentRefunded, order)
            assert server.given_back(order.id) == [order.total], fault
            assert len(harness.listener.received[order.id]) == 2, fault

        await asyncio.gather(*map(go_through, Behaviour))


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the stripe SDK's own doing
async def test_payments_wait_through_an_outage_of_the_provider_and_none_is_given_up(harness: Harness) -> None:
    orders = [an_order() for _ in range(20)]
    async with (
        stripe_server() as server,
        stripe_provider.connect("sk_test_1", server.url) as provider,
        harness.billing(provider) as billing,
    ):
        server.begin_outage()
        await harness.publish(invoiced(orders[0]))
        async with asyncio.timeout(20):
            while not billing.runners[Payment].in_outage:
                await asyncio.sleep(0.05)
        asked = len(server.requests)
        await harness.publish(*map(invoiced, orders[1:]))
        async with asyncio.timeout(20):
            while len(server.requests) < asked + 2:
                await asyncio.sleep(0.05)
        [waiting] = await harness.rows("""
            SELECT count(*) AS count, max(attempts) AS attempts FROM billing.payments WHERE state = 'pending'
            """)
        assert (waiting["count"], waiting["attempts"]) == (len(orders), 0)
        server.behave()
        for order in orders:
            await harness.listener.wait_for(PaymentConfirmed, order)
        assert [server.captured(order.id) for order in orders] == [[order.total] for order in orders]


async def run_billing(billing_url: str, ledger_url: str) -> None:
    """Runs a billing process on one message, read from standard input, until it is killed."""
    harness = Harness("", billing_url, ledger_url, make_bus(), Listener())
    body = sys.stdin.buffer.read()
    async with simulated.connect(ledger_url) as provider, harness.billing(provider):
        await harness.deliver(Message(uuid7(), "INVOICE_CREATED", body, (), ()))
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(run_billing(*sys.argv[1:]))
