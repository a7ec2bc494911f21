"""Limits: the amounts that a card payment can have, checked before the provider is asked.

The table is Stripe's (https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts). The simulated
provider applies it too, so a shop meets these limits before it goes live. The payment provider decides: it
can refuse a payment within these limits, for instance if the money is converted to another currency.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from events import money

Obstacle: TypeAlias = Literal[
    "amount_too_small", "amount_too_large", "amount_not_in_steps", "currency_unsupported"
]
"""Why an amount can't be charged with any card. It is the code of the refused payment's reason."""
OBSTACLES: Final[frozenset[str]] = frozenset(
    {"amount_too_small", "amount_too_large", "amount_not_in_steps", "currency_unsupported"}
)


@dataclass(frozen=True, slots=True)
class Limits:
    """The amounts that can be charged in one currency, in its minor units (ISO 4217)."""

    smallest: int
    largest: int
    step: int
    """Every amount is a multiple of this."""


EIGHT_DIGITS: Final = 99_999_999
"""Stripe's largest amount in most currencies, in its own minor unit."""

_NOT_CHARGED: Final = frozenset(
    "BGN BTN CUP ERN GHS IQD IRR KPW LYD MRU SDG SSP STN SVC SYP TMT VED VES ZWG "
    # Stripe lists it as zero-decimal and as two-decimal: a guess could be wrong a hundredfold.
    "UGX".split()
)
"""Currencies that Stripe does not list, or lists with contradicting decimals."""

_SMALLEST: Final = {
    **dict.fromkeys("ARS AUD BRL CAD CHF COP EUR IDR ILS INR JPY KRW NZD PHP RUB SGD USD ZAR".split(), 50),
    "AED": 200,
    "CZK": 1500,
    "DKK": 250,
    "GBP": 30,
    "HKD": 400,
    "HUF": 17500,
    "MXN": 1000,
    "MYR": 200,
    "NOK": 300,
    "PLN": 200,
    "RON": 200,
    "SEK": 300,
    "THB": 1000,
}
"""Stripe's smallest charges, for an account that is paid out in the same currency."""

_LARGEST: Final = {
    "IDR": money.MAX_AMOUNT,  # Stripe takes twelve digits, an order's amounts have eleven
    "ISK": 999_999,  # two of Stripe's eight digits are decimals
    "MGA": 9_999_999_900,  # Stripe's eight digits are whole ariary
}

_STEPS: Final = {
    **dict.fromkeys("BHD JOD KWD OMR TND".split(), 10),
    "MGA": 100,  # Stripe has no decimals
}
"""https://docs.stripe.com/currencies#three-decimal, https://docs.stripe.com/currencies#special-cases"""


def _limits(currency: str) -> Limits:
    step = _STEPS.get(currency, 1)
    largest = _LARGEST.get(currency, EIGHT_DIGITS // step * step)
    return Limits(smallest=_SMALLEST.get(currency, step), largest=largest, step=step)


LIMITS: Final = {currency: _limits(currency) for currency in money.EXPONENTS.keys() - _NOT_CHARGED}
"""Every currency that can be charged."""


def obstacle(amount: int, currency: str) -> Obstacle | None:
    """Why this amount (minor units) can't be charged in this currency; None if no limit forbids it."""
    limits = LIMITS.get(currency)
    if limits is None:
        return "currency_unsupported"
    if amount < limits.smallest:
        return "amount_too_small"
    if amount > limits.largest:
        return "amount_too_large"
    if amount % limits.step:
        return "amount_not_in_steps"
    return None
