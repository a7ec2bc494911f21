"""The simulated provider: its outcomes, its idempotency and its ledger."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from events.errors import Postponed
from events.limits import OBSTACLES
from services.billing import simulated
from services.billing.provider import (
    ChargeCaptured,
    ChargeDeclined,
    ChargeRequest,
    KeyVoid,
    RefundFailed,
    RefundRequest,
    RefundSucceeded,
)
from services.billing.simulated import ACCEPTED, DECLINE_CODES, KeyReused, SimulatedProvider


@pytest.fixture
async def ledger_url(service_url: Callable[[str], Awaitable[str]]) -> str:
    return await service_url("provider")


@pytest.fixture
async def provider(ledger_url: str) -> AsyncIterator[SimulatedProvider]:
    async with simulated.connect(ledger_url) as provider:
        yield provider


def a_charge(payment_method: str = "pm_card_visa") -> ChargeRequest:
    payment_id = uuid4()
    return ChargeRequest(f"{payment_id}-1", payment_id, uuid4(), 4657, "BRL", payment_method)


async def captured(provider: SimulatedProvider) -> ChargeCaptured:
    answer = await provider.charge(a_charge())
    assert isinstance(answer, ChargeCaptured)
    return answer


def a_refund_request(charge: ChargeCaptured, amount: int = 4657) -> RefundRequest:
    refund_id = uuid4()
    return RefundRequest(f"{refund_id}-1", refund_id, uuid4(), charge.reference, amount, "BRL")


async def test_outcomes_follow_from_the_token(provider: SimulatedProvider) -> None:
    for payment_method in ACCEPTED:
        assert isinstance(await provider.charge(a_charge(payment_method)), ChargeCaptured)
    for payment_method, code in DECLINE_CODES.items():
        answer = await provider.charge(a_charge(payment_method))
        assert isinstance(answer, ChargeDeclined)
        assert answer.code == code


async def test_a_request_that_is_cancelled_during_the_latency_moves_no_money(ledger_url: str) -> None:
    async with simulated.connect(ledger_url, latency=5.0) as slow:
        charge, request = (
            a_charge(),
            a_refund_request(ChargeCaptured("ch_1", 4657, "BRL", datetime.now(UTC))),
        )
        for asked in (slow.charge(charge), slow.refund(request)):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await asked
        assert isinstance(await slow.look_up_charge(charge), KeyVoid)
        assert isinstance(await slow.look_up_refund(request), KeyVoid)


async def test_a_key_gives_the_same_answer_to_every_request(
    provider: SimulatedProvider, ledger_url: str
) -> None:
    for charge in (a_charge(), a_charge("pm_card_chargeDeclined")):
        answers = await asyncio.gather(*(provider.charge(charge) for _ in range(20)))
        async with simulated.connect(ledger_url) as another:
            answers.append(await another.charge(charge))
        assert set(answers) == {answers[0]}


async def test_two_providers_asked_at_once_charge_once(provider: SimulatedProvider, ledger_url: str) -> None:
    charges = [a_charge() for _ in range(100)]
    async with simulated.connect(ledger_url) as another:
        there, here = await asyncio.gather(
            asyncio.gather(*map(another.charge, charges)),
            asyncio.gather(*map(provider.charge, reversed(charges))),
        )
    assert there == here[::-1]


async def test_a_key_reused_with_other_parameters_is_refused_and_other_keys_are_not(
    provider: SimulatedProvider,
) -> None:
    charge, neighbour = a_charge(), a_charge()
    await provider.charge(charge)
    answers = await asyncio.gather(
        provider.charge(replace(charge, amount=1)), provider.charge(neighbour), return_exceptions=True
    )
    assert isinstance(answers[0], KeyReused)
    assert isinstance(answers[1], ChargeCaptured)


async def test_a_look_up_finds_what_was_done_under_any_key(provider: SimulatedProvider) -> None:
    charge, never = a_charge(), a_charge()
    answer = await provider.charge(charge)
    assert await provider.look_up_charge(replace(charge, key="another")) == answer
    assert await provider.look_up_charge(never) == KeyVoid()
    assert isinstance(answer, ChargeCaptured)
    request = a_refund_request(answer)
    assert await provider.look_up_refund(request) == KeyVoid()
    repaid = await provider.refund(request)
    assert await provider.look_up_refund(replace(request, key="another")) == repaid


async def test_no_more_is_refunded_than_was_captured(provider: SimulatedProvider) -> None:
    charge = await captured(provider)
    answers = await asyncio.gather(*(provider.refund(a_refund_request(charge, 2000)) for _ in range(5)))
    assert [type(answer) for answer in answers] == [RefundSucceeded, RefundSucceeded] + [RefundFailed] * 3
    refused = await provider.refund(a_refund_request(charge, 658))
    assert isinstance(refused, RefundFailed)
    assert refused.final
    assert isinstance(await provider.refund(a_refund_request(charge, 657)), RefundSucceeded)


async def test_two_providers_asked_at_once_refund_once(provider: SimulatedProvider, ledger_url: str) -> None:
    charge = await captured(provider)
    async with simulated.connect(ledger_url) as another:
        answers = await asyncio.gather(
            *(each.refund(a_refund_request(charge)) for each in (provider, another) * 5)
        )
    assert [type(answer) for answer in answers].count(RefundSucceeded) == 1


async def test_a_repeated_refund_is_the_same_and_its_key_is_refused_for_another(
    provider: SimulatedProvider,
) -> None:
    request = a_refund_request(await captured(provider))
    assert await provider.refund(request) == await provider.refund(request)
    with pytest.raises(KeyReused):
        await provider.refund(replace(request, amount=1))
    other = await captured(provider)
    with pytest.raises(KeyReused):
        await provider.refund(replace(request, charge_reference=other.reference))


async def test_an_unknown_charge_can_not_be_refunded(provider: SimulatedProvider) -> None:
    unknown = ChargeCaptured("ch_none", 4657, "BRL", (await captured(provider)).at)
    assert isinstance(await provider.refund(a_refund_request(unknown)), RefundFailed)


@pytest.mark.parametrize(
    ("amount", "currency", "code"),
    [
        (40, "EUR", "amount_too_small"),
        (140_400_000, "EUR", "amount_too_large"),
        (5125, "KWD", "amount_not_in_steps"),
        (4657, "IRR", "currency_unsupported"),
    ],
)
async def test_an_amount_that_can_not_be_charged_is_declined_without_blaming_the_card(
    provider: SimulatedProvider, amount: int, currency: str, code: str
) -> None:
    for payment_method in ("pm_card_visa", "pm_card_chargeDeclined"):
        answer = await provider.charge(replace(a_charge(payment_method), amount=amount, currency=currency))
        assert isinstance(answer, ChargeDeclined)
        assert answer.code == code
        assert "card" not in answer.message
    assert code in OBSTACLES


async def test_every_refund_to_the_card_whose_refunds_fail_fails(
    provider: SimulatedProvider,
) -> None:
    charge = await provider.charge(a_charge("pm_card_refundFail"))
    assert isinstance(charge, ChargeCaptured)
    first = a_refund_request(charge)
    answer = await provider.refund(first)
    assert isinstance(answer, RefundFailed)
    assert not answer.final
    assert await provider.refund(first) == answer
    second = await provider.refund(replace(first, key=f"{first.refund_id}-2"))
    assert isinstance(second, RefundFailed)
    assert second != answer, "a refund of its own"
    assert await provider.look_up_refund(first) == KeyVoid()


@pytest.mark.parametrize("looked_up", [False, True])
async def test_a_refund_to_the_card_whose_refunds_pend_is_made_at_the_second_request(
    provider: SimulatedProvider, looked_up: bool
) -> None:
    charge = await provider.charge(a_charge("pm_card_pendingRefund"))
    assert isinstance(charge, ChargeCaptured)
    request = a_refund_request(charge)
    with pytest.raises(Postponed, match="pending"):
        await provider.refund(request)
    ask = provider.look_up_refund if looked_up else provider.refund
    assert isinstance(await ask(request), RefundSucceeded)
