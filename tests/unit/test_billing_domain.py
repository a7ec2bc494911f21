import subprocess
import sys
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from events.contracts import Declined, Invoiced, Paid, Refunded, Undeliverable
from events.envelope import encode_one
from services.billing.domain import (
    KEY_LIFETIME,
    LOOK_UP_AFTER,
    REFUND_PAUSES,
    FreePayment,
    IdempotencyKey,
    IllegalTransition,
    Payment,
    Refund,
    WrongAmount,
    payment_for,
)
from tests.factories import NOON, a_payment, an_invoice, an_item, an_order, one_of_each


def an_invoiced(payment_method: str | None = "pm_card_visa", **changes: Any) -> Invoiced:
    return Invoiced(order=an_order(**changes), invoice=an_invoice(), payment_method=payment_method)


def a_free_order() -> dict[str, Any]:
    """The changes that make an order's total 0."""
    return {"items": (an_item(unit_price=0, subtotal=0, tax=0, total=0),)}


def a_due_payment() -> Payment:
    payment = payment_for(an_invoiced(currency="EUR"), NOON)
    assert isinstance(payment, Payment)
    return payment


def captured(payment: Payment) -> Payment:
    order = payment.invoiced.order
    return payment.captured(
        provider="simulated", reference="ch_1", amount=order.total, currency=order.currency, at=NOON
    )


def a_due_refund() -> Refund:
    undeliverable = one_of_each()["SHIPMENT_ERROR"].data
    assert isinstance(undeliverable, Undeliverable)
    return Refund.due_for(undeliverable, NOON)


def test_a_decline_with_unstorable_characters_can_be_announced() -> None:
    declined = a_due_payment().declined(code="no \ud800", message="Refus\udce9e \0")
    announced = declined.announcement()
    assert isinstance(announced.data, Declined)
    assert announced.data.reason.message == "Refus\N{REPLACEMENT CHARACTER}e \N{REPLACEMENT CHARACTER}"
    assert encode_one(announced)


def test_a_captured_payment_announces_the_orders_total() -> None:
    payment = captured(a_due_payment())
    event = payment.announcement()
    assert isinstance(event.data, Paid)
    assert event.data.payment.amount == payment.invoiced.order.total
    assert event.data.payment.id == str(payment.id)
    assert event.data.order == payment.invoiced.order
    assert event.source == "/services/billing"


def test_a_declined_payment_announces_why() -> None:
    event = a_due_payment().declined(code="lost_card", message="The card was declined.").announcement()
    assert isinstance(event.data, Declined)
    assert (event.data.reason.code, event.data.reason.stage) == ("lost_card", "payment")


@pytest.mark.parametrize(("amount", "currency"), [(4656, "EUR"), (4658, "EUR"), (4657, "USD")])
def test_a_captured_amount_other_than_the_total_is_an_error(amount: int, currency: str) -> None:
    with pytest.raises(WrongAmount):
        a_due_payment().captured(
            provider="simulated", reference="ch_1", amount=amount, currency=currency, at=NOON
        )


@pytest.mark.parametrize("payment_method", [None, "pm_card_visa"])
def test_a_total_of_0_is_paid_at_once_without_a_provider(payment_method: str | None) -> None:
    invoiced = an_invoiced(payment_method, **a_free_order())
    payment = payment_for(invoiced, NOON)
    assert isinstance(payment, FreePayment)
    fact = payment.announcement().data.payment
    assert (fact.provider, fact.provider_reference, fact.amount) == ("none", "none", 0)
    assert fact.captured_at == NOON
    assert fact.id == str(payment.id) == str(payment_for(invoiced, NOON).id)


def test_an_order_with_a_total_is_never_free() -> None:
    with pytest.raises(WrongAmount):
        FreePayment.of(an_invoiced(), NOON)


def test_a_payment_of_0_is_refunded_at_once_without_a_provider() -> None:
    payment = payment_for(an_invoiced(**a_free_order()), NOON)
    assert isinstance(payment, FreePayment)
    refused = one_of_each(payment.invoiced.order)["SHIPMENT_ERROR"].data
    assert isinstance(refused, Undeliverable)
    refund = Refund.due_for(replace(refused, payment=payment.outcome.payment), NOON)
    assert refund.state == "refunded"
    fact = refund.announcement().data.refund
    assert (fact.provider_reference, fact.amount, fact.by_hand) == ("none", 0, False)
    assert fact.lines == ()


def test_money_that_no_provider_has_is_not_refunded() -> None:
    refused = one_of_each()["SHIPMENT_ERROR"].data
    assert isinstance(refused, Undeliverable)
    with pytest.raises(WrongAmount):
        Refund.due_for(replace(refused, payment=a_payment(refused.order, provider="none")), NOON)


def test_a_settled_payment_can_not_change() -> None:
    paid = captured(a_due_payment())
    with pytest.raises(IllegalTransition):
        paid.declined(code="card_declined", message="")
    with pytest.raises(IllegalTransition):
        captured(paid)
    with pytest.raises(IllegalTransition):
        paid.under_next_key()


def test_nothing_is_announced_before_there_is_an_outcome() -> None:
    with pytest.raises(IllegalTransition):
        a_due_payment().announcement()
    with pytest.raises(IllegalTransition):
        a_due_refund().announcement()


def test_a_refund_is_of_the_whole_payment_and_made_once() -> None:
    refund = a_due_refund()
    with pytest.raises(WrongAmount):
        refund.refunded(reference="re_1", amount=refund.undeliverable.payment.amount - 1, at=NOON)
    made = refund.refunded(reference="re_1", amount=refund.undeliverable.payment.amount, at=NOON)
    event = made.announcement()
    assert isinstance(event.data, Refunded)
    assert event.data.refund.amount == event.data.payment.amount
    assert event.data.reason == refund.undeliverable.reason
    with pytest.raises(IllegalTransition):
        made.under_next_key()
    with pytest.raises(IllegalTransition):
        made.refunded(reference="re_2", amount=refund.undeliverable.payment.amount, at=NOON)


def test_a_refund_that_fails_is_tried_under_new_keys_ever_later_and_then_waits_for_an_operator() -> None:
    refund = a_due_refund()
    for tries, pause in enumerate(REFUND_PAUSES, start=1):
        assert refund.key.generation == tries
        refund = refund.failed("The card is expired.")
        assert (refund.state, refund.pause, refund.failure) == ("pending", pause, "The card is expired.")
    given_up = refund.failed("The card is expired.")
    assert (given_up.state, given_up.key.generation) == ("dead", len(REFUND_PAUSES) + 2)
    assert list(REFUND_PAUSES) == sorted(REFUND_PAUSES)
    assert max(REFUND_PAUSES) < KEY_LIFETIME


def test_a_refund_that_failed_for_good_waits_for_an_operator_at_once() -> None:
    refund = a_due_refund().failed("The payment was given back already.", final=True)
    assert (refund.state, refund.key.generation) == ("dead", 2)
    with pytest.raises(IllegalTransition):
        refund.under_next_key()


def test_only_a_dead_refund_is_recorded_by_hand() -> None:
    refund = a_due_refund()
    with pytest.raises(IllegalTransition):
        refund.recorded_by_hand(reference="TRANSFER-1", at=NOON)
    recorded = refund.failed("Lost.", final=True).recorded_by_hand(reference="TRANSFER-1", at=NOON)
    fact = recorded.announcement().data.refund
    assert (fact.provider_reference, fact.by_hand) == ("TRANSFER-1", True)
    assert fact.amount == refund.undeliverable.payment.amount
    with pytest.raises(IllegalTransition):
        recorded.recorded_by_hand(reference="TRANSFER-2", at=NOON)


def test_the_same_payment_is_always_asked_for_under_the_same_key() -> None:
    payment_id = uuid4()
    assert str(IdempotencyKey(payment_id)) == str(IdempotencyKey(UUID(str(payment_id)), age=KEY_LIFETIME))
    assert str(IdempotencyKey(payment_id)) != str(IdempotencyKey(payment_id).next())
    payment = a_due_payment()
    assert payment.under_next_key().key.generation == payment.key.generation + 1
    assert payment.under_next_key().id == payment.id


@pytest.mark.parametrize(
    ("age", "live", "over"),
    [
        (timedelta(0), True, False),
        (KEY_LIFETIME, True, False),
        (KEY_LIFETIME + timedelta(seconds=1), False, False),
        (LOOK_UP_AFTER, False, False),
        (LOOK_UP_AFTER + timedelta(seconds=1), False, True),
    ],
)
def test_a_key_is_used_then_not_asked_for_then_looked_up(age: timedelta, live: bool, over: bool) -> None:
    key = IdempotencyKey(uuid4(), age=age)
    assert (key.is_usable, key.must_be_looked_up) == (live, over)


def test_the_last_use_of_a_key_is_before_the_provider_may_forget_it() -> None:
    assert timedelta(hours=24) > KEY_LIFETIME
    assert timedelta(minutes=10) <= LOOK_UP_AFTER - KEY_LIFETIME


def test_billing_starts_without_the_sdk_of_a_provider_that_it_does_not_use() -> None:
    check = "import sys, services.billing.simulated, services.billing.work; print('stripe' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
