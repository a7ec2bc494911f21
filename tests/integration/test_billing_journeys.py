"""What billing promises about money, on real PostgreSQL; the provider's own ledger is the witness."""

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
from ops.stripe.personality import Behaviour, Pace, Step
from services.billing import simulated
from services.billing.domain import Payment
from services.billing.provider import ChargeAnswer, ChargeRequest, Provider, RefundAnswer, RefundRequest
from services.billing.simulated import DECLINE_CODES, SimulatedProvider
from services.billing.stripe import provider as stripe_provider
from tests.billing_house import House, Listener, invoiced, make_bus, opened, undeliverable
from tests.factories import a_payment, an_item, an_order, one_of_each
from tests.stripe_desk import serving_desk


@pytest.fixture
async def house(fresh_database: str, service_url: Callable[[str], Awaitable[str]]) -> AsyncIterator[House]:
    async with opened(fresh_database, service_url) as house:
        yield house


@pytest.fixture
async def provider(house: House) -> AsyncIterator[SimulatedProvider]:
    async with simulated.connect(house.ledger_url) as provider:
        yield provider


async def paid(house: House, order: Order) -> PaymentConfirmed:
    await house.publish(invoiced(order))
    return await house.listener.hears(PaymentConfirmed, order)


ORDERS = [
    an_order(),
    an_order(currency="JPY", items=(an_item(subtotal=500, tax=50, total=550),)),
    an_order(currency="KWD", items=(an_item(subtotal=5124, tax=1, total=5125), an_item(total=4655))),
]


async def test_what_is_captured_is_the_orders_total(house: House, provider: SimulatedProvider) -> None:
    async with house.billing(provider):
        for order in ORDERS:
            event = await paid(house, order)
            assert event.data.order == order
            assert event.data.payment.amount == order.total
            [charge] = await house.rows("SELECT * FROM provider.charges WHERE order_id = $1", order.id)
            assert (charge["amount"], charge["currency"]) == (order.total, order.currency)
            assert charge["id"] == event.data.payment.provider_reference
            assert str(charge["payment_id"]) == event.data.payment.id


async def test_a_decline_is_announced_with_its_reason_and_nothing_is_charged(
    house: House, provider: SimulatedProvider
) -> None:
    reasons = {**DECLINE_CODES, "pm_canary_4711": "payment_method_unknown"}
    orders = {method: an_order(payment_method=method) for method in reasons}
    async with house.billing(provider):
        await house.publish(*(invoiced(order) for order in orders.values()))
        for method, order in orders.items():
            event = await house.listener.hears(PaymentFailed, order)
            assert (event.data.reason.code, event.data.reason.stage) == (reasons[method], "payment")
            assert event.data.reason.message
            assert method not in event.data.reason.message
    assert await house.rows("SELECT 1 FROM provider.charges WHERE status = 'succeeded'") == []


async def test_an_invoice_that_comes_again_is_not_charged_again(
    house: House, provider: SimulatedProvider
) -> None:
    order = an_order()
    first, under_another_id = invoiced(order), invoiced(order)
    async with house.billing(provider):
        await paid(house, order)
        await house.publish(first, under_another_id)
        [message] = envelope.messages([first])
        await house.deliver(message)
    assert await house.charges(order) == [order.total]
    assert len(house.listener.heard[order.id]) == 1


async def test_two_invoices_of_one_order_in_one_batch_are_charged_once(
    house: House, provider: SimulatedProvider
) -> None:
    order = an_order()
    async with house.billing(provider):
        await house.publish(invoiced(order), invoiced(order))
        await house.listener.hears(PaymentConfirmed, order)
    assert await house.charges(order) == [order.total]
    assert len(house.listener.heard[order.id]) == 1


async def test_two_processes_that_hold_the_same_payments_charge_and_announce_once(
    house: House, provider: SimulatedProvider
) -> None:
    orders = [an_order() for _ in range(30)]  # fewer than a process performs at a time
    asked: defaultdict[str, list[asyncio.Event]] = defaultdict(lambda: [asyncio.Event(), asyncio.Event()])

    async with simulated.connect(house.ledger_url) as other:
        first, second = AnswersTogether(provider, asked, 0), AnswersTogether(other, asked, 1)
        async with house.billing(first), house.billing(second):
            for order in orders:
                house.send(invoiced(order))
            while not all(len(house.listener.heard[order.id]) for order in orders):
                await house.expire_claims()
                await asyncio.sleep(0.1)
    for order in orders:
        assert await house.charges(order) == [order.total]
        assert len({event.id for event in house.listener.heard[order.id]}) == 1
    assert all(one.is_set() and two.is_set() for one, two in asked.values())


async def test_a_refund_is_made_once_however_often_and_wherever_it_is_asked_for(
    house: House, provider: SimulatedProvider
) -> None:
    order = an_order()
    async with simulated.connect(house.ledger_url) as other, house.billing(provider), house.billing(other):
        event = await paid(house, order)
        await asyncio.gather(*(house.publish(undeliverable(event)) for _ in range(4)))
        refunded = await house.listener.hears(PaymentRefunded, order)
        await house.publish(undeliverable(event))
    assert refunded.data.refund.amount == order.total
    assert refunded.data.payment == event.data.payment
    assert [type(heard) for heard in house.listener.heard[order.id]] == [PaymentConfirmed, PaymentRefunded]
    [refund] = await house.rows("SELECT * FROM provider.refunds")
    assert refund["amount"] == order.total
    assert refund["charge_id"] == event.data.payment.provider_reference


async def test_a_refund_of_a_payment_that_was_never_captured_is_dead_with_its_reason(
    house: House, provider: SimulatedProvider
) -> None:
    declined, good = an_order(payment_method="pm_card_chargeDeclined"), an_order()
    unknown = one_of_each()["SHIPMENT_ERROR"]
    async with house.billing(provider):
        confirmed = await paid(house, good)
        await house.publish(invoiced(declined))
        failed = await house.listener.hears(PaymentFailed, declined)
        forged = one_of_each(failed.data.order)["SHIPMENT_ERROR"]
        await house.publish(unknown, undeliverable(confirmed), forged)
        await house.listener.hears(PaymentRefunded, good)
    parked = await house.rows("SELECT id, state, last_error FROM billing.parked")
    assert {(row["id"], row["state"]) for row in parked} == {(unknown.id, "dead"), (forged.id, "dead")}
    assert all("nothing to refund" in row["last_error"] for row in parked)
    assert [row["amount"] for row in await house.rows("SELECT amount FROM provider.refunds")] == [good.total]


async def test_a_refund_that_names_another_payment_than_the_captured_one_is_dead(
    house: House, provider: SimulatedProvider
) -> None:
    order, victim = an_order(), an_order()
    async with house.billing(provider):
        event, of_victim = await paid(house, order), await paid(house, victim)
        for payment in (a_payment(order), of_victim.data.payment):
            data = undeliverable(event).data
            forged = type(undeliverable(event)).of(
                type(data)(order=data.order, invoice=data.invoice, payment=payment, reason=data.reason)
            )
            await house.publish(forged)
    assert [row["state"] for row in await house.rows("SELECT state FROM billing.parked")] == ["dead", "dead"]
    assert await house.rows("SELECT * FROM provider.refunds") == []


async def test_a_process_killed_between_the_providers_answer_and_its_commit_charges_once(
    house: House, provider: SimulatedProvider
) -> None:
    order = an_order()
    locked = asyncio.Event()
    release = asyncio.Event()

    async def hold_back_announcements() -> None:
        """Handling an invoice writes no event; settling its payment does, and so waits for this lock."""
        async with house.connected() as connection, connection.transaction():
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
        house.billing_url,
        house.ledger_url,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": ""},
        stdin=asyncio.subprocess.PIPE,
    )
    assert child.stdin
    child.stdin.write(message.body)
    child.stdin.close()
    await house.until("SELECT 1 FROM provider.charges WHERE order_id = $1", order.id)
    child.kill()
    assert await child.wait() < 0
    release.set()
    await holding
    [payment] = await house.rows("SELECT state FROM billing.payments")
    assert payment["state"] == "pending"
    await house.expire_claims()
    async with house.billing(provider):
        event = await house.listener.hears(PaymentConfirmed, order)
    assert event.data.payment.amount == order.total
    assert await house.charges(order) == [order.total]
    assert len(house.listener.heard[order.id]) == 1


async def test_connections_that_break_at_any_moment_cost_no_payment_and_no_second_charge(
    house: House, provider: SimulatedProvider
) -> None:
    orders = [an_order() for _ in range(60)]

    async def break_connections() -> None:
        query = """
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND usename ~ '_(billing|provider)$' AND random() < 0.5"""
        broken = 0
        while broken < 30:
            broken += len(await house.rows(query))
            await asyncio.sleep(0.02)

    async with house.billing(provider):
        breaking = asyncio.create_task(break_connections())
        for order in orders:
            await house.publish(invoiced(order))
        await breaking
        await house.expire_claims()
        for order in orders:
            await house.listener.hears(PaymentConfirmed, order)
    for order in orders:
        assert await house.charges(order) == [order.total]
        assert len({event.id for event in house.listener.heard[order.id]}) == 1
    assert await house.rows("SELECT 1 FROM billing.payments WHERE state <> 'captured'") == []


@dataclass
class LostAnswers:
    """A provider whose answers get lost, and if there is none behind it the questions too."""

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
    """A process's provider that answers when another process has been asked for the same, too."""

    behind: Provider
    asked: Mapping[str, Sequence[asyncio.Event]]
    """By key: whether the one and the other process was asked."""
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
    house: House, provider: SimulatedProvider, was_charged: bool
) -> None:
    order = an_order()
    async with house.billing(LostAnswers(provider if was_charged else None)):
        await house.publish(invoiced(order))
        await house.until("SELECT 1 FROM billing.payments WHERE attempts > 0")
    await house.age_keys(25)
    async with house.billing(provider):
        event = await house.listener.hears(PaymentConfirmed, order)
    assert await house.charges(order) == [order.total]
    [row] = await house.rows("SELECT key FROM provider.charges")
    assert row["key"] == f"{event.data.payment.id}-{1 if was_charged else 2}"


async def test_between_last_use_and_look_up_nobody_asks_under_a_key(
    house: House, provider: SimulatedProvider
) -> None:
    order = an_order()
    async with house.billing(LostAnswers(None)):
        await house.publish(invoiced(order))
        await house.until("SELECT 1 FROM billing.payments WHERE attempts > 0")
    await house.age_keys(23.5)
    [before] = await house.rows("SELECT attempts FROM billing.payments")
    async with house.billing(provider):
        await house.until("SELECT 1 FROM billing.payments WHERE attempts > $1", before["attempts"])
    assert await house.charges(order) == []
    [row] = await house.rows("SELECT state, generation FROM billing.payments")
    assert (row["state"], row["generation"]) == ("pending", 1)


@pytest.mark.parametrize("was_made", [True, False])
async def test_a_refund_whose_key_may_be_forgotten_is_looked_up_and_made_once(
    house: House, provider: SimulatedProvider, was_made: bool
) -> None:
    order = an_order()
    async with house.billing(provider):
        event = await paid(house, order)
    async with house.billing(LostAnswers(provider if was_made else None)):
        await house.publish(undeliverable(event))
        await house.until("SELECT 1 FROM billing.refunds WHERE attempts > 0")
    await house.age_keys(25)
    async with house.billing(provider):
        refunded = await house.listener.hears(PaymentRefunded, order)
    [row] = await house.rows("SELECT key, amount FROM provider.refunds")
    assert row["amount"] == order.total
    assert row["key"] == f"{refunded.data.refund.id}-{1 if was_made else 2}"


async def test_a_refund_waits_for_the_provider_that_has_the_money(
    house: House, provider: SimulatedProvider
) -> None:
    order = an_order()
    async with house.billing(provider):
        event = await paid(house, order)
    async with house.billing(LostAnswers(None, name="another")):
        await house.publish(undeliverable(event))
        await house.until("SELECT 1 FROM billing.refunds WHERE attempts > 0")
    [refund] = await house.rows("SELECT last_error FROM billing.refunds")
    assert "simulated has the money" in refund["last_error"]
    await house.expire_claims()
    async with house.billing(provider):
        await house.listener.hears(PaymentRefunded, order)


async def test_an_amount_or_currency_that_nobody_charges_is_told_as_such(
    house: House, provider: SimulatedProvider
) -> None:
    """Orders are refused where they are placed; these come from a version that knew no limits."""
    orders = {
        "amount_too_small": an_order(currency="EUR", items=(an_item(subtotal=40, tax=0, total=40),)),
        "currency_unsupported": an_order(currency="IRR"),
    }
    async with house.billing(provider):
        await house.publish(*(invoiced(order) for order in orders.values()))
        for code, order in orders.items():
            reason = (await house.listener.hears(PaymentFailed, order)).data.reason
            assert reason.code == code
            assert "card" not in reason.message


async def refund_rows(house: House) -> list[tuple[str, int, str | None]]:
    rows = await house.rows("SELECT state, generation, last_error FROM billing.refunds")
    return [(row["state"], row["generation"], row["last_error"]) for row in rows]


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the stripe SDK's own doing
async def test_a_refund_that_fails_is_made_under_the_next_key_and_told_once(house: House) -> None:
    order = an_order(payment_method="pm_card_refundFail")
    async with (
        serving_desk(Pace(failing_refunds=2)) as server,
        stripe_provider.connect("sk_test_1", server.url) as provider,
        house.billing(provider),
    ):
        await house.publish(undeliverable(await paid(house, order)))
        for generation in (2, 3):  # each waits for its time
            await house.until("SELECT 1 FROM billing.refunds WHERE generation = $1", generation)
            [row] = await house.rows("SELECT claimed_until - now() AS pause, last_error FROM billing.refunds")
            assert row["pause"].total_seconds() > 30
            assert "expired_or_canceled_card" in row["last_error"]
            assert [type(heard) for heard in house.listener.heard[order.id]] == [PaymentConfirmed]
            await house.expire_claims()
        refunded = await house.listener.hears(PaymentRefunded, order)
        assert server.given_back(order.id) == [order.total]
        keys = [key for path, key in server.requests if path == "/v1/refunds" and key]
    assert keys == [f"{refunded.data.refund.id}-{generation}" for generation in (1, 2, 3)]
    assert not refunded.data.refund.by_hand


async def test_a_refund_that_always_fails_waits_for_an_operator_and_a_replay_asks_under_a_new_key(
    house: House, provider: SimulatedProvider
) -> None:
    order = an_order(payment_method="pm_card_refundFail")
    async with house.billing(provider):
        await house.publish(undeliverable(await paid(house, order)))
        for generation in (2, 3, 4):
            await house.until("SELECT 1 FROM billing.refunds WHERE generation = $1", generation)
            await house.expire_claims()
        await house.until("SELECT 1 FROM billing.refunds WHERE state = 'dead'")
        [(_, generation, error)] = await refund_rows(house)
        assert generation == 5
        assert error
        assert "has failed" in error
        await house.rows(  # as `dead replay` does it, days later
            "UPDATE billing.refunds SET state = 'pending', attempts = 0, claimed_until = now(), "
            "first_tried_at = now() - interval '3 days'"
        )
        await house.until("SELECT 1 FROM billing.refunds WHERE state = 'dead'")
        assert [type(heard) for heard in house.listener.heard[order.id]] == [PaymentConfirmed]
    keys = [row["key"] for row in await house.rows("SELECT key FROM provider.refunds ORDER BY created_at")]
    assert len(set(keys)) == len(keys) == 5


async def test_what_somebody_else_gave_back_waits_for_an_operator_at_once(
    house: House, provider: SimulatedProvider
) -> None:
    order = an_order()
    async with house.billing(provider):
        event = await paid(house, order)
        other, reference = uuid7(), event.data.payment.provider_reference
        await provider.refund(
            RefundRequest(str(other), other, order.id, reference, order.total, order.currency)
        )
        await house.publish(undeliverable(event))
        await house.until("SELECT 1 FROM billing.refunds WHERE state = 'dead' AND attempts = 0")
    [(_, _, error)] = await refund_rows(house)
    assert error
    assert "less is left" in error


async def test_a_refund_that_was_pending_is_told_when_it_is_made(
    house: House, provider: SimulatedProvider
) -> None:
    order = an_order(payment_method="pm_card_pendingRefund")
    async with house.billing(provider):
        await house.publish(undeliverable(await paid(house, order)))
        await house.until("SELECT 1 FROM billing.refunds WHERE attempts > 0")
        await house.expire_claims()
        await house.listener.hears(PaymentRefunded, order)
    assert len(await house.rows("SELECT 1 FROM provider.refunds")) == 1


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the stripe SDK's own doing
async def test_at_stripe_every_fault_ends_in_one_charge_of_the_total_and_one_refund(house: House) -> None:
    async with (
        serving_desk() as server,
        stripe_provider.connect("sk_test_1", server.url, answer_seconds=0.5) as provider,
        house.billing(provider),
    ):

        async def go_through(fault: Behaviour) -> None:
            order = an_order()
            server.fail(order.id, Step.CONFIRM, fault)
            event = await paid(house, order)
            assert event.data.payment.provider == "stripe"
            assert server.captured(order.id) == [order.total], fault
            server.fail(order.id, Step.REFUND, fault)
            await house.publish(undeliverable(event))
            await house.listener.hears(PaymentRefunded, order)
            assert server.given_back(order.id) == [order.total], fault
            assert len(house.listener.heard[order.id]) == 2, fault

        await asyncio.gather(*map(go_through, Behaviour))


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the stripe SDK's own doing
async def test_an_outage_of_the_provider_is_waited_for_and_nothing_is_given_up(house: House) -> None:
    orders = [an_order() for _ in range(20)]
    async with (
        serving_desk() as server,
        stripe_provider.connect("sk_test_1", server.url) as provider,
        house.billing(provider) as billing,
    ):
        server.begin_outage()
        await house.publish(invoiced(orders[0]))
        async with asyncio.timeout(20):
            while not billing.runners[Payment].in_outage:
                await asyncio.sleep(0.05)
        asked = len(server.requests)
        await house.publish(*map(invoiced, orders[1:]))
        async with asyncio.timeout(20):
            while len(server.requests) < asked + 2:
                await asyncio.sleep(0.05)
        [waiting] = await house.rows("""
            SELECT count(*) AS count, max(attempts) AS attempts FROM billing.payments WHERE state = 'pending'
            """)
        assert (waiting["count"], waiting["attempts"]) == (len(orders), 0)
        server.behave()
        for order in orders:
            await house.listener.hears(PaymentConfirmed, order)
        assert [server.captured(order.id) for order in orders] == [[order.total] for order in orders]


async def run_billing(billing_url: str, ledger_url: str) -> None:
    """A billing process of its own, given one message and then left to itself."""
    house = House("", billing_url, ledger_url, make_bus(), Listener())
    body = sys.stdin.buffer.read()
    async with simulated.connect(ledger_url) as provider, house.billing(provider):
        await house.deliver(Message(uuid7(), "INVOICE_CREATED", body, (), ()))
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(run_billing(*sys.argv[1:]))
