"""Amounts as Stripe has them: its minor units are not always those of ISO 4217."""

from typing import Final

from events import money

STRIPE_DECIMALS: Final = {"ISK": 2, "MGA": 0}
"""Where Stripe's minor unit is not ISO 4217's: https://docs.stripe.com/currencies#special-cases"""
CONTRADICTORY: Final = frozenset({"UGX"})
"""Listed there as zero-decimal and, further down, as two-decimal: a guess could be wrong a hundredfold."""


def stripe_amount(amount: int, currency: str) -> int | None:
    """The amount in Stripe's minor unit, or None where Stripe can't charge exactly that. Never rounded.

    Three-decimal currencies are charged in steps of ten (`5.124 KWD` can't be), ISK as if it had two
    decimals, MGA as if it had none: https://docs.stripe.com/currencies
    """
    if currency in CONTRADICTORY:
        return None
    shift = _shift(currency)
    if shift < 0 and amount % int(10**-shift):
        return None
    if money.exponent(currency) == 3 and amount % 10:
        return None
    return amount // int(10**-shift) if shift < 0 else amount * int(10**shift)


def iso_amount(amount: int, currency: str) -> int:
    """The way back: an amount in Stripe's minor unit, in that of ISO 4217."""
    shift = _shift(currency)
    return amount * int(10**-shift) if shift < 0 else amount // int(10**shift)


def _shift(currency: str) -> int:
    """By how many decimals Stripe's unit is smaller."""
    decimals = money.exponent(currency)
    return STRIPE_DECIMALS.get(currency, decimals) - decimals
