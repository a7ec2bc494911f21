"""Each of Stripe's errors is a refusal that declines the payment, or a defect that declines nobody."""

import pytest
import stripe

from services.billing import declines
from services.billing.stripe.errors import (
    ACCOUNT_DEFECTS,
    FINAL_REFUNDS,
    PARAMETER_DEFECTS,
    RefusedByStripe,
)


def invalid(
    code: str | None, param: str | None = None, *, status: int = 400, message: str = "No."
) -> RefusedByStripe:
    body = {"error": {"type": "invalid_request_error", "code": code, "param": param, "message": message}}
    return RefusedByStripe(
        stripe.InvalidRequestError(message, param, code, http_status=status, json_body=body)  # type: ignore[no-untyped-call]
    )


def card_error(code: str, decline_code: str | None = None) -> RefusedByStripe:
    body = {"error": {"type": "card_error", "code": code, "decline_code": decline_code, "message": "No."}}
    return RefusedByStripe(stripe.CardError("No.", None, code, http_status=402, json_body=body))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("code", "param", "reason"),
    [
        ("amount_too_small", None, "amount_too_small"),
        ("amount_too_small", "amount", "amount_too_small"),
        ("amount_too_large", "amount", "amount_too_large"),
        ("parameter_invalid_integer", "amount", "parameter_invalid_integer"),
        (None, "currency", "currency_unsupported"),
        (None, None, "payment_refused"),
        ("resource_missing", "payment_method", "payment_method_unknown"),
        ("parameter_invalid_empty", "payment_method", "parameter_invalid_empty"),
        ("payment_method_unsupported_type", None, "payment_method_unsupported_type"),
        ("payment_method_currency_mismatch", None, "payment_method_currency_mismatch"),
        ("payment_intent_incompatible_payment_method", None, "payment_intent_incompatible_payment_method"),
        ("payment_intent_mandate_invalid", None, "payment_intent_mandate_invalid"),
        ("invalid_charge_amount", None, "invalid_charge_amount"),
        ("a_code_of_next_year", None, "a_code_of_next_year"),
        (None, "shipping[address][country]", "payment_refused"),
        ("parameter_invalid_empty", "shipping[address][line1]", "parameter_invalid_empty"),
    ],
)
def test_an_error_about_this_payment_is_a_refusal(code: str | None, param: str | None, reason: str) -> None:
    refusal = invalid(code, param)
    assert (refusal.is_defect, refusal.reason) == (False, reason)
    assert "card was declined" not in declines.payment_declined(reason).message


@pytest.mark.parametrize(
    ("code", "param"),
    [
        *((code, None) for code in sorted(ACCOUNT_DEFECTS | PARAMETER_DEFECTS)),
        ("parameter_unknown", "payment_method"),
        ("parameter_missing", "amount"),
        ("parameter_unknown", "shipping[address][line3]"),
        ("resource_missing", "intent"),
        ("parameter_invalid_empty", "metadata"),
        ("testmode_charges_only", "payment_method"),
    ],
)
def test_an_error_that_would_affect_every_payment_is_a_defect(code: str, param: str | None) -> None:
    assert invalid(code, param).is_defect


def test_a_path_or_an_api_version_that_stripe_does_not_have_is_a_defect() -> None:
    assert invalid(None, status=404, message="Unrecognized request URL (POST: /v2/payment).").is_defect
    assert invalid(None, message="Invalid Stripe API version: 2099-01-01").is_defect


@pytest.mark.parametrize(
    ("code", "decline_code", "reason"),
    [
        ("card_declined", "generic_decline", "card_declined"),
        ("card_declined", "insufficient_funds", "insufficient_funds"),
        ("card_declined", "currency_not_supported", "currency_not_supported"),
        ("expired_card", None, "expired_card"),
    ],
)
def test_a_decline_has_its_own_code_and_names_the_card(
    code: str, decline_code: str | None, reason: str
) -> None:
    refusal = card_error(code, decline_code)
    assert (refusal.is_defect, refusal.reason) == (False, reason)
    assert "card" in declines.card_declined(reason).message


@pytest.mark.parametrize("code", sorted(FINAL_REFUNDS))
def test_a_refund_that_can_never_be_whole_is_final(code: str) -> None:
    assert invalid(code).is_final_for_refund
    assert invalid(None, "amount").is_final_for_refund
    assert not invalid("balance_insufficient").is_final_for_refund
