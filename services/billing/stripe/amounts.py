"""Amounts in Stripe's minor units, which are not always those of ISO 4217."""

from typing import Final

from events import limits, money

STRIPE_DECIMALS: Final = {"ISK": 2, "MGA": 0}
"""Decimals where Stripe's differ from ISO 4217's: https://docs.stripe.com/currencies#special-cases"""


def stripe_amount(amount: int, currency: str) -> int | None:
    """Converts an amount to Stripe's minor unit. None if Stripe can't charge exactly that; never rounds.

    `events.limits` says which amounts those are.
    """
    if limits.obstacle(amount, currency) in ("currency_unsupported", "amount_not_in_steps"):
        return None
    shift = _shift(currency)
    return amount // int(10**-shift) if shift < 0 else amount * int(10**shift)


def iso_amount(amount: int, currency: str) -> int:
    """Converts an amount in Stripe's minor unit to that of ISO 4217."""
    shift = _shift(currency)
    return amount * int(10**-shift) if shift < 0 else amount // int(10**shift)


def _shift(currency: str) -> int:
    """Stripe's decimals minus those of ISO 4217."""
    decimals = money.exponent(currency)
    return STRIPE_DECIMALS.get(currency, decimals) - decimals
