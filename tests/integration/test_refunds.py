"""`orderflow refunds record` settles a refund that a person made, announces it once and records the act."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import pytest
from typer.testing import CliRunner
from uuid_utils.compat import uuid7

from events.contracts import Order, PaymentConfirmed, PaymentRefunded
from ops.main import app
from ops.refunds import command
from ops.refunds.command import NothingToRecord
from ops.target import Target
from services.billing import simulated
from services.billing.simulated import SimulatedProvider
from tests.billing_harness import Harness, invoiced, open_harness, undeliverable
from tests.factories import an_order

BY_HAND = {"--reference": "SEPA-4711", "--note": "the card is gone", "--as": "Ana Souza"}


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


async def record(harness: Harness, order_id: UUID, *, status: int = 0, **changes: str) -> str:
    """Runs the command, checks its exit status, and returns its output."""
    options = BY_HAND | {f"--{name}": value for name, value in changes.items()}
    arguments = [word for option in options.items() for word in option]
    result = await asyncio.to_thread(
        CliRunner().invoke,
        app,
        ["refunds", "record", "--order", str(order_id), *arguments],
        env={"DATABASE_URL": harness.owner_url},
    )
    assert result.exit_code == status, result.output
    return result.output


async def a_dead_refund(harness: Harness, provider: SimulatedProvider) -> Order:
    """An order whose refund the provider does not make."""
    order = an_order()
    async with harness.billing(provider):
        await harness.publish(invoiced(order, "pm_card_refundFail"))
        await harness.publish(undeliverable(await harness.listener.wait_for(PaymentConfirmed, order)))
        for generation in (2, 3, 4):
            await harness.wait_until("SELECT 1 FROM billing.refunds WHERE generation = $1", generation)
            await harness.expire_claims()
        await harness.wait_until("SELECT 1 FROM billing.refunds WHERE state = 'dead'")
    return order


async def test_a_refund_made_by_hand_is_announced_once_and_on_record(
    harness: Harness, provider: SimulatedProvider
) -> None:
    order = await a_dead_refund(harness, provider)
    assert await record(harness, order.id) == (
        f"46.57 BRL of order {order.id} is recorded as refunded: SEPA-4711.\n"
    )
    assert "refunded already" in await record(harness, order.id, status=1)
    async with harness.billing(provider):
        event = await harness.listener.wait_for(PaymentRefunded, order)
    refund = event.data.refund
    assert (refund.provider_reference, refund.by_hand, refund.amount) == ("SEPA-4711", True, order.total)
    assert [type(event) for event in harness.listener.received[order.id]] == [
        PaymentConfirmed,
        PaymentRefunded,
    ]
    [row] = await harness.rows("SELECT id, state, by_hand, provider_reference FROM billing.refunds")
    assert (str(row["id"]), row["state"], row["by_hand"]) == (refund.id, "refunded", True)
    [act] = await harness.rows("SELECT * FROM billing.interventions")
    assert (act["act"], act["actor"], act["note"]) == ("record", "Ana Souza", "the card is gone")
    assert (act["order_id"], act["event_id"]) == (order.id, row["id"])
    assert "has failed" in act["error"]


async def test_a_refund_that_two_people_record_is_announced_once(
    harness: Harness, provider: SimulatedProvider
) -> None:
    order = await a_dead_refund(harness, provider)
    target = Target(harness.owner_url, None)
    ended = await asyncio.gather(
        *(
            command.record(target, order.id, reference=name, note="by hand", actor_name=name)
            for name in ("Ana", "Bo")
        ),
        return_exceptions=True,
    )
    assert {type(each) for each in ended} == {int, NothingToRecord}
    assert len(await harness.rows("SELECT 1 FROM billing.interventions")) == 1
    assert len(await harness.rows("SELECT 1 FROM billing.outbox WHERE type = 'PAYMENT_REFUNDED'")) == 1


async def test_a_refund_that_the_provider_may_still_make_is_not_recorded(
    harness: Harness, provider: SimulatedProvider
) -> None:
    order = an_order()
    async with harness.billing(provider):
        await harness.publish(invoiced(order, "pm_card_refundFail"))
        event = await harness.listener.wait_for(PaymentConfirmed, order)
        assert "has no refund" in await record(harness, order.id, status=1)
        await harness.publish(undeliverable(event))
        await harness.wait_until("SELECT 1 FROM billing.refunds")
        assert "second time" in await record(harness, order.id, status=1)
    assert "has no refund" in await record(harness, uuid7(), status=1)
    assert await harness.rows("SELECT 1 FROM billing.interventions") == []


@pytest.mark.parametrize("option", ["reference", "note"])
async def test_reference_and_note_are_required(harness: Harness, option: str) -> None:
    assert f"--{option}" in await record(harness, uuid7(), status=2, **{option: "  "})


async def test_root_has_to_give_a_name(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 0)
    assert "with --as NAME" in await record(harness, uuid7(), status=1, **{"as": "  "})
