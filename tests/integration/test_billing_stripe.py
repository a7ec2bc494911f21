"""The Stripe provider: the real SDK over HTTP, against a server that answers as Stripe does."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import pytest
from msgspec.structs import replace as replace_fields

from events.contracts import NO_POSTAL_CODE, Address
from events.errors import Postponed, Unavailable, UnknownOutcome
from sandbox.stripe import objects as sent
from sandbox.stripe.cards import AUTHENTICATES, AUTHENTICATION_REQUIRED, DECLINES
from sandbox.stripe.faults import Behaviour, Step
from services.billing.provider import (
    ChargeCaptured,
    ChargeDeclined,
    ChargeRequest,
    KeyVoid,
    Recipient,
    RefundFailed,
    RefundRequest,
    RefundSucceeded,
)
from services.billing.stripe import provider as stripe_provider
from services.billing.stripe.errors import RefusedByStripe
from services.billing.stripe.provider import StripeProvider
from tests.stripe_server import StripeServer, stripe_server
from tests.waiting import eventually

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the SDK's own doing

DECLINED = {**DECLINES, **dict.fromkeys(sorted(AUTHENTICATES), AUTHENTICATION_REQUIRED)}

T = TypeVar("T")


@pytest.fixture
async def server() -> AsyncIterator[StripeServer]:
    async with stripe_server() as server:
        yield server


@pytest.fixture
async def stripe(server: StripeServer) -> AsyncIterator[StripeProvider]:
    async with stripe_provider.connect("sk_test_1", server.url, answer_seconds=1.0) as provider:
        yield provider


HOME = Address(line1="Rua Augusta 1", city="São Paulo", postal_code="01304-001", country="BR")


def a_charge(payment_method: str = "pm_card_visa", **changes: Any) -> ChargeRequest:
    payment_id = uuid4()
    charge = ChargeRequest(
        f"{payment_id}-1",
        payment_id,
        uuid4(),
        4657,
        "BRL",
        payment_method,
        description="Order WEB-1042",
        recipient=Recipient("Ana Souza", HOME),
    )
    return replace(charge, **changes)


def a_refund_request(charge: ChargeRequest, captured: object) -> RefundRequest:
    assert isinstance(captured, ChargeCaptured)
    refund_id = uuid4()
    return RefundRequest(
        f"{refund_id}-1", refund_id, charge.order_id, captured.reference, charge.amount, charge.currency
    )


async def until_definite(ask: Callable[[], Awaitable[T]]) -> tuple[T, list[Exception]]:
    """Asks again until the answer is final, as the runner does. Returns the errors on the way, too."""
    doubts: list[Exception] = []
    while True:
        try:
            return await ask(), doubts
        except (Unavailable, Postponed, UnknownOutcome) as doubt:
            doubts.append(doubt)
            assert len(doubts) < 60, doubts
            await asyncio.sleep(0.05)  # the runner's pause, but shorter


async def until_settled(provider: StripeProvider, charge: ChargeRequest) -> tuple[object, list[Exception]]:
    """Asks again, and under the next key where a key is void, as the runner does."""
    answer, doubts = await until_definite(lambda: provider.charge(charge))
    for generation in range(2, 5):
        if not isinstance(answer, KeyVoid):
            break
        renewed = replace(charge, key=f"{charge.payment_id}-{generation}")
        answer, more = await until_definite(lambda renewed=renewed: provider.charge(renewed))  # type: ignore[misc]
        doubts += more
    return answer, doubts


async def test_a_charge_captures_the_total(stripe: StripeProvider, server: StripeServer) -> None:
    charge = a_charge()
    answer = await stripe.charge(charge)
    assert isinstance(answer, ChargeCaptured)
    assert (answer.amount, answer.currency) == (4657, "BRL")
    [intent] = server.of_order(charge.order_id)
    assert answer.reference == intent.id
    assert server.captured(charge.order_id) == [4657]


async def test_a_charge_says_what_is_paid_for_and_where_it_goes(
    stripe: StripeProvider, server: StripeServer
) -> None:
    """What Stripe's rules for exports from India ask for."""
    away = replace_fields(HOME, line2="ap 3", state="SP", name="not on the charge", company="nor this")
    recipient = Recipient("Rui Dias", away, "+55 11 5555 0100")
    charge = a_charge(recipient=recipient, order_reference="WEB-1042", key_hash="a" * 64)
    await stripe.charge(charge)
    [intent] = server.of_order(charge.order_id)
    assert intent.description == "Order WEB-1042"
    address = sent.Address("São Paulo", "BR", "Rua Augusta 1", "ap 3", "01304-001", "SP")
    assert intent.shipping == sent.Shipping(address, "Rui Dias", "+55 11 5555 0100")
    assert intent.metadata == {
        "payment_id": str(charge.payment_id),
        "order_id": str(charge.order_id),
        "reference": "WEB-1042",
        "key_hash": "a" * 64,
    }


async def test_an_address_without_a_postal_code_has_none_at_stripe(
    stripe: StripeProvider, server: StripeServer
) -> None:
    hong_kong = Address(line1="1 Peak Road", city="Central", postal_code=NO_POSTAL_CODE, country="HK")
    charge = a_charge(recipient=Recipient("Ana Souza", hong_kong))
    assert isinstance(await stripe.charge(charge), ChargeCaptured)
    [intent] = server.of_order(charge.order_id)
    assert intent.shipping
    assert (intent.shipping.address.postal_code, intent.shipping.phone) == (None, None)


async def test_the_longest_order_is_within_stripes_limits(
    stripe: StripeProvider, server: StripeServer
) -> None:
    text, code = "ü" * 200, "0" * 64
    address = Address(
        line1=text, line2=text, city=text, state=text, postal_code=code, country="XK", name=text
    )
    charge = a_charge(
        description=f"Order {text}",
        order_reference=text,
        key_hash="f" * 64,
        recipient=Recipient(text, address, code),
    )
    assert isinstance(await stripe.charge(charge), ChargeCaptured)


async def test_an_address_that_stripe_refuses_declines_this_payment_alone(
    stripe: StripeProvider, server: StripeServer
) -> None:
    refused, good = a_charge(), a_charge()
    error = {"type": "invalid_request_error", "param": "shipping[address][country]"}
    server.refuse(Step.CREATE, 400, error)
    assert isinstance(await stripe.charge(refused), ChargeDeclined)
    server.refuse(Step.CREATE, 400, error | {"code": "parameter_invalid_empty"})
    assert isinstance(await stripe.charge(refused), ChargeDeclined)
    assert isinstance(await stripe.charge(good), ChargeCaptured)


async def test_a_charge_repeated_under_its_key_is_the_same(
    stripe: StripeProvider, server: StripeServer
) -> None:
    charge = a_charge()
    first, second = await stripe.charge(charge), await stripe.charge(charge)
    assert first == second
    assert server.captured(charge.order_id) == [4657]


async def test_a_charge_asked_twice_at_once_is_made_once(
    stripe: StripeProvider, server: StripeServer
) -> None:
    charge = a_charge()
    await asyncio.gather(*(until_definite(lambda: stripe.charge(charge)) for _ in range(5)))
    assert server.captured(charge.order_id) == [4657]


@pytest.mark.parametrize("payment_method", DECLINED)
async def test_a_decline_gives_its_code_and_leaves_nothing_that_could_be_paid_later(
    stripe: StripeProvider, server: StripeServer, payment_method: str
) -> None:
    charge = a_charge(payment_method)
    code, decline_code = DECLINED[payment_method]
    expected = code if decline_code == "generic_decline" else decline_code
    answer = await stripe.charge(charge)
    assert isinstance(answer, ChargeDeclined)
    assert answer.code == expected
    assert [intent.status for intent in server.of_order(charge.order_id)] == ["canceled"]
    assert await stripe.charge(charge) == answer  # as after a crash that lost the answer


async def test_an_unknown_payment_method_is_declined_and_its_token_is_not_shown(
    stripe: StripeProvider, server: StripeServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answer = await stripe.charge(a_charge("pm_canary_4711"))
    assert isinstance(answer, ChargeDeclined)
    assert answer.code == "payment_method_unknown"
    assert "canary" not in answer.message + caplog.text
    assert server.totals().intents == {}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"amount": 40, "currency": "EUR"}, "amount_too_small"),
        ({"amount": 5124, "currency": "KWD"}, "amount_not_in_steps"),
        ({"amount": 500, "currency": "UGX"}, "currency_unsupported"),
        ({"amount": 100_000_000}, "amount_too_large"),
        ({"currency": "IRR"}, "currency_unsupported"),
    ],
)
async def test_an_amount_or_currency_that_stripe_does_not_take_is_declined_without_asking_it(
    stripe: StripeProvider, server: StripeServer, changes: dict[str, Any], code: str
) -> None:
    answer = await stripe.charge(a_charge(**changes))
    assert isinstance(answer, ChargeDeclined)
    assert answer.code == code
    assert "card" not in answer.message
    assert server.totals().intents == {}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"code": "amount_too_small"}, "amount_too_small"),
        ({"code": "payment_method_unsupported_type"}, "payment_method_unsupported_type"),
        ({}, "payment_refused"),
    ],
)
@pytest.mark.parametrize("step", [Step.CREATE, Step.CONFIRM])
async def test_every_form_of_refusal_is_a_decline_and_leaves_nothing_that_could_be_paid_later(
    stripe: StripeProvider, server: StripeServer, step: Step, error: dict[str, str], code: str
) -> None:
    charge = a_charge()
    server.refuse(step, 400, {"type": "invalid_request_error", "message": "pm_card_visa", **error})
    answer = await stripe.charge(charge)
    assert isinstance(answer, ChargeDeclined)
    assert answer.code == code
    assert "card" not in answer.message
    statuses = [intent.status for intent in server.of_order(charge.order_id)]
    assert statuses == ([] if step is Step.CREATE else ["canceled"])


@pytest.mark.parametrize("step", [Step.CREATE, Step.CONFIRM])
async def test_a_defect_of_ours_declines_nobody_and_the_payment_succeeds_once_it_is_fixed(
    stripe: StripeProvider, server: StripeServer, step: Step
) -> None:
    charge = a_charge()
    unknown = {"type": "invalid_request_error", "code": "parameter_unknown", "param": "error_on_requires"}
    server.refuse(step, 400, unknown)
    with pytest.raises(RefusedByStripe):
        await stripe.charge(charge)
    assert isinstance(await stripe.charge(charge), ChargeCaptured)
    assert server.captured(charge.order_id) == [4657]


@pytest.mark.parametrize(
    ("amount", "currency", "sent"), [(500, "JPY", 500), (5120, "KWD", 5120), (5, "ISK", 500)]
)
async def test_the_captured_amount_is_in_our_own_minor_unit(
    stripe: StripeProvider, server: StripeServer, amount: int, currency: str, sent: int
) -> None:
    charge = a_charge(amount=amount, currency=currency)
    answer = await stripe.charge(charge)
    assert isinstance(answer, ChargeCaptured)
    assert (answer.amount, answer.currency) == (amount, currency)
    assert server.captured(charge.order_id) == [sent]


@pytest.mark.parametrize("step", [Step.CREATE, Step.CONFIRM])
async def test_after_every_fault_a_payment_is_captured_once(
    stripe: StripeProvider, server: StripeServer, step: Step
) -> None:
    async def charge_through(fault: Behaviour) -> None:
        charge = a_charge()
        server.fail(charge.order_id, step, fault)
        answer, doubts = await until_settled(stripe, charge)
        assert isinstance(answer, ChargeCaptured), fault
        assert server.captured(charge.order_id) == [4657], fault
        await server.has_happened(fault, charge.order_id)
        if fault in (Behaviour.UNAVAILABLE, Behaviour.RATE_LIMITED):
            pauses = [doubt.retry_after for doubt in doubts if isinstance(doubt, Unavailable)]
            assert pauses == [1.0 if fault is Behaviour.RATE_LIMITED else None]
        else:
            assert all(isinstance(doubt, Postponed | UnknownOutcome) for doubt in doubts), fault

    await asyncio.gather(*map(charge_through, Behaviour))


@pytest.mark.parametrize("step", [Step.CREATE, Step.CONFIRM, Step.CANCEL])
async def test_after_every_fault_a_decline_is_returned_and_nothing_can_be_paid_later(
    stripe: StripeProvider, server: StripeServer, step: Step
) -> None:
    async def decline_through(fault: Behaviour) -> None:
        if (step, fault) == (Step.CONFIRM, Behaviour.UNKNOWN_STATUS):
            return  # an error has no status
        charge = a_charge("pm_card_chargeDeclinedLostCard")
        server.fail(charge.order_id, step, fault)
        answer, _ = await until_settled(stripe, charge)
        assert isinstance(answer, ChargeDeclined), fault
        assert answer.code == "lost_card", fault
        confirmed = [i for i in server.of_order(charge.order_id) if i.latest_charge]
        assert [intent.status for intent in confirmed] == ["canceled"], fault
        await server.has_happened(fault, charge.order_id)

    await asyncio.gather(*map(decline_through, Behaviour))


async def test_an_error_saved_with_the_key_of_a_confirmation_does_not_block_the_payment(
    stripe: StripeProvider, server: StripeServer
) -> None:
    charge = a_charge()
    server.fail(charge.order_id, Step.CONFIRM, Behaviour.SAVED_ERROR_BEFORE)
    with pytest.raises(UnknownOutcome):
        await stripe.charge(charge)
    assert isinstance(await stripe.charge(charge), ChargeCaptured)
    confirmations = [key for path, key in server.requests if path.endswith("/confirm")]
    assert confirmations == [f"{charge.key}-confirm-1"] * 2 + [f"{charge.key}-confirm-2"]


async def test_an_error_saved_with_the_key_of_a_creation_makes_the_key_void(
    stripe: StripeProvider, server: StripeServer
) -> None:
    charge = a_charge()
    server.fail(charge.order_id, Step.CREATE, Behaviour.SAVED_ERROR_AFTER)
    with pytest.raises(UnknownOutcome):  # Stripe may not have saved it
        await stripe.charge(charge)
    assert await stripe.charge(charge) == KeyVoid()
    assert isinstance(await stripe.charge(replace(charge, key=f"{charge.payment_id}-2")), ChargeCaptured)
    assert server.captured(charge.order_id) == [4657]


@pytest.mark.parametrize(
    ("payment_method", "becomes"),
    [("pm_card_visa", ChargeCaptured), ("pm_card_chargeDeclined", ChargeDeclined)],
)
async def test_a_charge_is_postponed_while_stripe_processes_it(
    stripe: StripeProvider, server: StripeServer, payment_method: str, becomes: type
) -> None:
    charge = a_charge(payment_method)
    server.fail(charge.order_id, Step.CONFIRM, Behaviour.PROCESSING)
    answer, doubts = await until_definite(lambda: stripe.charge(charge))
    assert isinstance(answer, becomes)
    assert doubts
    assert all(isinstance(doubt, Postponed) and "processing" in str(doubt) for doubt in doubts)


@pytest.mark.parametrize("step", [Step.CREATE, Step.CONFIRM])
async def test_an_answer_that_arrives_too_slowly_is_unknown(
    stripe: StripeProvider, server: StripeServer, step: Step
) -> None:
    charge = a_charge()
    server.fail(charge.order_id, step, Behaviour.SLOW_DRIP)
    with pytest.raises(UnknownOutcome, match="in time"):
        await stripe.charge(charge)
    assert isinstance(await stripe.charge(charge), ChargeCaptured)
    assert server.captured(charge.order_id) == [4657]


async def test_a_cancellation_that_came_too_early_does_not_block_the_decline(
    stripe: StripeProvider, server: StripeServer
) -> None:
    server.timing.processing_seconds = 1.5
    charge = a_charge("pm_card_chargeDeclined")
    server.fail(charge.order_id, Step.CONFIRM, Behaviour.TIMEOUT_BEFORE, Behaviour.PROCESSING)
    server.fail(charge.order_id, Step.CANCEL, Behaviour.SLOW)
    with pytest.raises(UnknownOutcome):
        await stripe.charge(charge)
    with pytest.raises(UnknownOutcome):
        await stripe.look_up_charge(charge)  # cancels slowly; meanwhile Stripe confirms
    with pytest.raises(Postponed, match="processing"):
        await stripe.charge(charge)
    answer, _ = await until_definite(lambda: stripe.charge(charge))
    assert isinstance(answer, ChargeDeclined)
    assert answer.code == "card_declined"
    await server.has_happened(Behaviour.SLOW, charge.order_id)
    assert [intent.status for intent in server.of_order(charge.order_id)] == ["canceled"]


async def test_many_concurrent_charges_do_not_wait_for_a_connection(server: StripeServer) -> None:
    charges = [a_charge() for _ in range(150)]
    for charge in charges:
        server.fail(charge.order_id, Step.CREATE, Behaviour.TIMEOUT_BEFORE)

    async def asked() -> int:
        return len(server.requests)

    async with stripe_provider.connect("sk_test_1", server.url, answer_seconds=120) as provider:
        asking = [asyncio.create_task(provider.charge(charge)) for charge in charges]
        await eventually(asked, lambda number: number == len(charges))
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def test_a_server_that_does_not_listen_is_an_outage(server: StripeServer) -> None:
    async with stripe_provider.connect("sk_test_1", "http://127.0.0.1:1") as provider:
        with pytest.raises(Unavailable):
            await provider.charge(a_charge())


async def test_a_look_up_finds_a_payment_whose_key_is_forgotten(
    stripe: StripeProvider, server: StripeServer
) -> None:
    charge = a_charge()
    server.fail(charge.order_id, Step.CONFIRM, Behaviour.TIMEOUT_AFTER)
    with pytest.raises(UnknownOutcome):
        await stripe.charge(charge)
    server.forget_keys()
    answer = await stripe.look_up_charge(charge)
    assert isinstance(answer, ChargeCaptured)
    assert server.captured(charge.order_id) == [4657]


async def test_a_look_up_cancels_an_intent_that_was_never_confirmed(
    stripe: StripeProvider, server: StripeServer
) -> None:
    charge = a_charge()
    server.fail(charge.order_id, Step.CREATE, Behaviour.TIMEOUT_AFTER)
    with pytest.raises(UnknownOutcome):
        await stripe.charge(charge)
    server.forget_keys()
    assert await stripe.look_up_charge(charge) == KeyVoid()
    assert [intent.status for intent in server.of_order(charge.order_id)] == ["canceled"]
    assert isinstance(await stripe.charge(replace(charge, key=f"{charge.payment_id}-2")), ChargeCaptured)
    assert server.captured(charge.order_id) == [4657]


async def test_a_look_up_finds_a_decline_and_cancels_its_intent(
    stripe: StripeProvider, server: StripeServer
) -> None:
    charge = a_charge("pm_card_chargeDeclinedStolenCard")
    server.fail(charge.order_id, Step.CONFIRM, Behaviour.TIMEOUT_AFTER)
    with pytest.raises(UnknownOutcome):
        await stripe.charge(charge)
    server.forget_keys()
    answer = await stripe.look_up_charge(charge)
    assert isinstance(answer, ChargeDeclined)
    assert answer.code == "stolen_card"
    assert [intent.status for intent in server.of_order(charge.order_id)] == ["canceled"]


async def test_a_look_up_of_a_charge_that_was_never_requested_finds_nothing(stripe: StripeProvider) -> None:
    assert await stripe.look_up_charge(a_charge()) == KeyVoid()


async def test_after_every_fault_the_money_is_refunded_once(
    stripe: StripeProvider, server: StripeServer
) -> None:
    async def repay_through(*faults: Behaviour) -> None:
        charge = a_charge()
        captured, _ = await until_definite(lambda: stripe.charge(charge))
        request = a_refund_request(charge, captured)
        server.fail(charge.order_id, Step.REFUND, *faults)
        answer, _ = await until_definite(lambda: stripe.refund(request))
        if isinstance(answer, KeyVoid):
            assert faults == (Behaviour.SAVED_ERROR_BEFORE,)
            renewed = replace(request, key=f"{request.refund_id}-2")
            answer, _ = await until_definite(lambda: stripe.refund(renewed))
        assert isinstance(answer, RefundSucceeded), faults
        assert answer.amount == 4657
        assert server.given_back(charge.order_id) == [4657], faults
        found, _ = await until_definite(lambda: stripe.look_up_refund(request))
        assert found == answer
        for fault in faults:
            await server.has_happened(fault, charge.order_id)

    await asyncio.gather(repay_through(), *map(repay_through, Behaviour))


async def test_the_refunded_amount_is_in_our_own_minor_unit(
    stripe: StripeProvider, server: StripeServer
) -> None:
    charge = a_charge(amount=5, currency="ISK")
    answer = await stripe.refund(a_refund_request(charge, await stripe.charge(charge)))
    assert isinstance(answer, RefundSucceeded)
    assert answer.amount == 5
    assert server.given_back(charge.order_id) == [500]


async def test_a_refund_that_somebody_else_made_is_not_ours(
    stripe: StripeProvider, server: StripeServer
) -> None:
    charge = a_charge()
    captured = await stripe.charge(charge)
    await stripe.refund(a_refund_request(charge, captured))
    answer = await stripe.refund(a_refund_request(charge, captured))
    assert isinstance(answer, RefundFailed)
    assert answer.final
    assert server.given_back(charge.order_id) == [4657]


async def test_a_failed_refund_is_returned_and_the_next_key_makes_another(
    stripe: StripeProvider, server: StripeServer
) -> None:
    server.timing.failing_refunds = 1
    charge = a_charge("pm_card_refundFail")
    request = a_refund_request(charge, await stripe.charge(charge))
    answer = await stripe.refund(request)
    assert isinstance(answer, RefundFailed)
    assert "expired_or_canceled_card" in answer.reason
    assert not answer.final
    assert await stripe.refund(request) == answer, "the same key gives the same failure"
    assert await stripe.look_up_refund(request) == KeyVoid()
    renewed = replace(request, key=f"{request.refund_id}-2")
    made = await stripe.refund(renewed)
    assert isinstance(made, RefundSucceeded)
    assert await stripe.look_up_refund(renewed) == made, "the one that failed is not taken for it"
    assert server.given_back(charge.order_id) == [4657]


async def test_a_refund_that_is_pending_for_days_is_not_made_twice(
    stripe: StripeProvider, server: StripeServer
) -> None:
    days = 4 * 86_400.0
    server.timing.pending_refund_seconds = days
    charge = a_charge("pm_card_pendingRefund")
    request = a_refund_request(charge, await stripe.charge(charge))
    server.ago = 2 * days
    for ask in (stripe.refund, stripe.refund, stripe.look_up_refund):
        with pytest.raises(Postponed, match="pending"):
            await ask(request)
    server.ago = 0.0
    assert isinstance(await stripe.look_up_refund(request), RefundSucceeded)
    assert len(server.refunds_of(charge.order_id)) == 1


@pytest.mark.parametrize(
    ("error", "final"),
    [
        ({"code": "charge_disputed"}, True),
        ({"code": "balance_insufficient"}, False),
        ({"code": "a_code_of_next_year"}, False),
    ],
)
async def test_a_refused_refund_has_failed_with_its_reason(
    stripe: StripeProvider, server: StripeServer, error: dict[str, str], final: bool
) -> None:
    charge = a_charge()
    request = a_refund_request(charge, await stripe.charge(charge))
    server.refuse(Step.REFUND, 400, {"type": "invalid_request_error", **error})
    answer = await stripe.refund(request)
    assert isinstance(answer, RefundFailed)
    assert answer.final == final
    assert error["code"] in answer.reason


async def test_a_defect_of_ours_does_not_fail_the_refund(
    stripe: StripeProvider, server: StripeServer
) -> None:
    charge = a_charge()
    request = a_refund_request(charge, await stripe.charge(charge))
    server.refuse(Step.REFUND, 404, {"type": "invalid_request_error", "code": "resource_missing"})
    with pytest.raises(RefusedByStripe):
        await stripe.refund(request)
    assert isinstance(await stripe.refund(request), RefundSucceeded)


async def test_a_charge_and_a_refund_of_another_version_under_the_same_key_are_found(
    stripe: StripeProvider, server: StripeServer
) -> None:
    """Another version may send other parameters, which Stripe refuses as a reuse of the key."""
    charge = a_charge()
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        intent = await http.post(
            "/v1/payment_intents",
            data={
                "amount": "4657",
                "currency": "brl",
                "payment_method": charge.payment_method,
                "metadata[payment_id]": str(charge.payment_id),
                "metadata[order_id]": str(charge.order_id),
                "metadata[reference]": "WEB-1042",
            },
            headers={"Idempotency-Key": charge.key},
        )
        assert intent.status_code == 200
        captured = await stripe.charge(charge)
        assert isinstance(captured, ChargeCaptured)
        request = a_refund_request(charge, captured)
        await http.post(
            "/v1/refunds",
            data={
                "payment_intent": captured.reference,
                "metadata[refund_id]": str(request.refund_id),
            },
            headers={"Idempotency-Key": request.key},
        )
        assert isinstance(await stripe.refund(request), RefundSucceeded)
    assert server.captured(charge.order_id) == [4657]
    assert server.given_back(charge.order_id) == [4657]


async def test_a_refund_that_was_never_requested_is_not_found(stripe: StripeProvider) -> None:
    charge = a_charge()
    request = a_refund_request(charge, await stripe.charge(charge))
    assert await stripe.look_up_refund(request) == KeyVoid()


async def test_the_sdk_sends_no_telemetry(stripe: StripeProvider, server: StripeServer) -> None:
    await stripe.charge(a_charge())
    await stripe.charge(a_charge())
    assert "x-stripe-client-telemetry" not in server.headers
    assert "telemetry_id" not in server.headers["x-stripe-client-user-agent"]
