"""Amounts as Stripe has them: its minor units are not always those of ISO 4217."""

from typing import Final

from events import limits, money

STRIPE_DECIMALS: Final = {"ISK": 2, "MGA": 0}
"""Where Stripe's minor unit is not ISO 4217's: https://docs.stripe.com/currencies#special-cases"""


def stripe_amount(amount: int, currency: str) -> int | None:
    """The amount in Stripe's minor unit, or None where Stripe can't charge exactly that. Never rounded.

    `events.limits` says which amounts those are. ISK is charged as if it had two decimals, MGA as if it had
    none: https://docs.stripe.com/currencies#special-cases
    """
    if limits.obstacle(amount, currency) in ("currency_unsupported", "amount_not_in_steps"):
        return None
    shift = _shift(currency)
    return amount // int(10**-shift) if shift < 0 else amount * int(10**shift)


def iso_amount(amount: int, currency: str) -> int:
    """The way back: an amount in Stripe's minor unit, in that of ISO 4217."""
    shift = _shift(currency)
    return amount * int(10**-shift) if shift < 0 else amount // int(10**shift)


def _shift(currency: str) -> int:
    """By how many decimals Stripe's unit is smaller."""
    decimals = money.exponent(currency)
    return STRIPE_DECIMALS.get(currency, decimals) - decimals
