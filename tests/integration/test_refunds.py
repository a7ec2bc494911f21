"""`orderflow refunds record`: what a person gave back by hand is settled, announced once, and on record."""

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
from tests.billing_house import House, invoiced, opened, undeliverable
from tests.factories import an_order

BY_HAND = {"--reference": "SEPA-4711", "--note": "the card is gone", "--as": "Ana Souza"}


@pytest.fixture
async def house(fresh_database: str, service_url: Callable[[str], Awaitable[str]]) -> AsyncIterator[House]:
    async with opened(fresh_database, service_url) as house:
        yield house


@pytest.fixture
async def provider(house: House) -> AsyncIterator[SimulatedProvider]:
    async with simulated.connect(house.ledger_url) as provider:
        yield provider


async def record(house: House, order_id: UUID, *, status: int = 0, **changes: str) -> str:
    """The command's output. It has to exit with `status`."""
    options = BY_HAND | {f"--{name}": value for name, value in changes.items()}
    arguments = [word for option in options.items() for word in option]
    result = await asyncio.to_thread(
        CliRunner().invoke,
        app,
        ["refunds", "record", "--order", str(order_id), *arguments],
        env={"DATABASE_URL": house.owner_url},
    )
    assert result.exit_code == status, result.output
    return result.output


async def a_dead_refund(house: House, provider: SimulatedProvider) -> Order:
    """An order whose payment the provider does not give back."""
    order = an_order(payment_method="pm_card_refundFail")
    async with house.billing(provider):
        await house.publish(invoiced(order))
        await house.publish(undeliverable(await house.listener.hears(PaymentConfirmed, order)))
        for generation in (2, 3, 4):
            await house.until("SELECT 1 FROM billing.refunds WHERE generation = $1", generation)
            await house.expire_claims()
        await house.until("SELECT 1 FROM billing.refunds WHERE state = 'dead'")
    return order


async def test_a_refund_made_by_hand_is_announced_once_and_on_record(
    house: House, provider: SimulatedProvider
) -> None:
    order = await a_dead_refund(house, provider)
    assert await record(house, order.id) == (
        f"46.57 BRL of order {order.id} is recorded as given back: SEPA-4711.\n"
    )
    assert "given back already" in await record(house, order.id, status=1)
    async with house.billing(provider):
        event = await house.listener.hears(PaymentRefunded, order)
    refund = event.data.refund
    assert (refund.provider_reference, refund.by_hand, refund.amount) == ("SEPA-4711", True, order.total)
    assert [type(heard) for heard in house.listener.heard[order.id]] == [PaymentConfirmed, PaymentRefunded]
    [row] = await house.rows("SELECT id, state, by_hand, provider_reference FROM billing.refunds")
    assert (str(row["id"]), row["state"], row["by_hand"]) == (refund.id, "refunded", True)
    [act] = await house.rows("SELECT * FROM billing.interventions")
    assert (act["act"], act["actor"], act["note"]) == ("record", "Ana Souza", "the card is gone")
    assert (act["order_id"], act["event_id"]) == (order.id, row["id"])
    assert "has failed" in act["error"]


async def test_two_who_record_the_same_refund_announce_it_once(
    house: House, provider: SimulatedProvider
) -> None:
    order = await a_dead_refund(house, provider)
    target = Target(house.owner_url, None)
    ended = await asyncio.gather(
        *(
            command.record(target, order.id, reference=name, note="by hand", named=name)
            for name in ("Ana", "Bo")
        ),
        return_exceptions=True,
    )
    assert {type(each) for each in ended} == {int, NothingToRecord}
    assert len(await house.rows("SELECT 1 FROM billing.interventions")) == 1
    assert len(await house.rows("SELECT 1 FROM billing.outbox WHERE type = 'PAYMENT_REFUNDED'")) == 1


async def test_what_the_provider_may_still_give_back_is_not_recorded(
    house: House, provider: SimulatedProvider
) -> None:
    order = an_order(payment_method="pm_card_refundFail")
    async with house.billing(provider):
        await house.publish(invoiced(order))
        event = await house.listener.hears(PaymentConfirmed, order)
        assert "has no refund" in await record(house, order.id, status=1)
        await house.publish(undeliverable(event))
        await house.until("SELECT 1 FROM billing.refunds")
        assert "second time" in await record(house, order.id, status=1)
    assert "has no refund" in await record(house, uuid7(), status=1)
    assert await house.rows("SELECT 1 FROM billing.interventions") == []


@pytest.mark.parametrize("option", ["reference", "note", "actor"])
async def test_who_did_what_and_why_has_to_be_said(house: House, option: str) -> None:
    assert f"--{option}" in await record(house, uuid7(), status=2, **{option: "  "})
