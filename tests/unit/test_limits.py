"""The amounts that can be charged are known beforehand, and the Stripe-like server has the same limits."""

import pytest

from events import limits, money
from events.limits import LIMITS, OBSTACLES, Obstacle, obstacle
from sandbox.stripe import intents
from sandbox.stripe.errors import StripeRefusal
from sandbox.stripe.forms import Form
from services.billing.stripe.amounts import stripe_amount


@pytest.mark.parametrize(
    ("price", "currency", "expected"),
    [
        ("0.49", "EUR", "amount_too_small"),
        ("0.50", "EUR", None),
        ("0.30", "GBP", None),
        ("174.99", "HUF", "amount_too_small"),
        ("49", "JPY", "amount_too_small"),
        ("999999.99", "EUR", None),
        ("1000000.00", "EUR", "amount_too_large"),
        ("1404000.00", "EUR", "amount_too_large"),
        ("99999999", "JPY", None),
        ("100000000", "JPY", "amount_too_large"),
        ("999999999.99", "IDR", None),
        ("999999", "ISK", None),
        ("1000000", "ISK", "amount_too_large"),
        ("62.701", "KWD", "amount_not_in_steps"),
        ("62.700", "KWD", None),
        ("5.50", "MGA", "amount_not_in_steps"),
        ("5.00", "IRR", "currency_unsupported"),
        ("5000", "UGX", "currency_unsupported"),
    ],
)
def test_an_amount_that_can_not_be_charged_is_known(
    price: str, currency: str, expected: Obstacle | None
) -> None:
    assert obstacle(money.parse_amount(price, currency), currency) == expected


def test_every_obstacle_has_a_case_above() -> None:
    marks = test_an_amount_that_can_not_be_charged_is_known.pytestmark  # type: ignore[attr-defined]
    assert {case[2] for case in marks[0].args[1]} - {None} == OBSTACLES


@pytest.mark.parametrize("currency", sorted(LIMITS))
def test_the_stripe_like_server_has_the_same_limits(currency: str) -> None:
    bounds = LIMITS[currency]
    for amount in (bounds.smallest, bounds.largest):
        sent = stripe_amount(amount, currency)
        intents.created(Form(f"amount={sent}&currency={currency.lower()}"), 0)
    beyond = [bounds.smallest - bounds.step]
    if bounds.largest < money.MAX_AMOUNT:
        beyond.append(bounds.largest + bounds.step)
    for amount in beyond:
        with pytest.raises(StripeRefusal):
            intents.created(Form(f"amount={stripe_amount(amount, currency)}&currency={currency.lower()}"), 0)


def test_the_stripe_like_server_charges_no_other_currency() -> None:
    for currency in money.EXPONENTS.keys() - LIMITS.keys() - {"UGX"}:
        with pytest.raises(StripeRefusal):
            intents.created(Form(f"amount=100000&currency={currency.lower()}"), 0)


def test_limits_fit_into_an_orders_amounts() -> None:
    assert all(
        0 < bounds.smallest < bounds.largest <= money.MAX_AMOUNT
        and not bounds.smallest % bounds.step
        and not bounds.largest % bounds.step
        for bounds in limits.LIMITS.values()
    )
