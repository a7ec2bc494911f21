import pytest

from events import limits, money
from services.billing.stripe.amounts import iso_amount, stripe_amount


@pytest.mark.parametrize(
    ("price", "currency", "asked"),
    [
        ("19.99", "EUR", 1999),
        ("500", "JPY", 500),
        ("5.120", "KWD", 5120),
        ("5", "ISK", 500),  # Stripe has two decimals
        ("500.00", "MGA", 500),  # Stripe has none
    ],
)
def test_an_amount_is_sent_in_stripes_own_minor_unit(price: str, currency: str, asked: int) -> None:
    assert stripe_amount(money.parse_amount(price, currency), currency) == asked
    assert iso_amount(asked, currency) == money.parse_amount(price, currency)


@pytest.mark.parametrize(
    ("price", "currency"),
    [
        ("5.124", "KWD"),  # Stripe wants steps of ten
        ("500.50", "MGA"),
        ("500", "UGX"),  # Stripe's documentation contradicts itself
    ],
)
def test_an_amount_that_stripe_can_not_charge_exactly_is_never_rounded(price: str, currency: str) -> None:
    assert stripe_amount(money.parse_amount(price, currency), currency) is None


def test_every_amount_within_the_limits_can_be_sent_and_read_back() -> None:
    for currency, bounds in limits.LIMITS.items():
        for amount in (bounds.smallest, bounds.largest):
            assert limits.obstacle(amount, currency) is None
            sent = stripe_amount(amount, currency)
            assert sent is not None
            assert iso_amount(sent, currency) == amount


def test_a_currency_that_is_not_charged_is_never_sent() -> None:
    for currency in money.EXPONENTS.keys() - limits.LIMITS.keys():
        assert stripe_amount(1_000_000, currency) is None
