"""Declines: the sentence that the customer reads, for each reason code.

A provider's own sentence is never passed on, because it may contain the payment method's token. The codes are
Stripe's decline codes (https://docs.stripe.com/declines/codes), its error codes
(https://docs.stripe.com/error-codes) and those of `events.limits`.
"""

from typing import Final

from services.billing.provider import ChargeDeclined

UNKNOWN_METHOD: Final = "payment_method_unknown"
CARD_DECLINED: Final = "card_declined"

_SENTENCES: Final = {
    # The amount or the currency
    "amount_too_small": "The amount is too small to be charged.",
    "amount_too_large": "The amount is too large to be charged.",
    "amount_not_in_steps": "Exactly this amount can't be charged in this currency.",
    "currency_unsupported": "Payments can't be made in this currency.",
    # The payment method
    UNKNOWN_METHOD: "The payment provider does not know this payment method.",
    "authentication_required": "The payment needs to be authenticated by the customer.",
    "card_not_supported": "The card does not support this kind of payment.",
    "card_velocity_exceeded": "The card was used too often within a short time.",
    "currency_not_supported": "The card can't be charged in this currency.",
    "expired_card": "The card has expired.",
    "incorrect_cvc": "The card's security code is incorrect.",
    "insufficient_funds": "The card has insufficient funds.",
    "processing_error": "An error occurred while the card was processed.",
    # Neither
    "payment_canceled": "The payment was cancelled before it was made.",
}
_OTHER_CARD_DECLINE: Final = "The card was declined."
"""Also for reasons that the customer is not told: a card that is lost, stolen or looks fraudulent."""
_OTHER_DECLINE: Final = "The payment provider did not accept this payment."


def card_declined(code: str) -> ChargeDeclined:
    """The card's bank, or the provider's check of the card, declined."""
    return ChargeDeclined(code, _SENTENCES.get(code, _OTHER_CARD_DECLINE))


def payment_declined(code: str) -> ChargeDeclined:
    """The provider declined this payment, for a reason that need not be the card."""
    return ChargeDeclined(code, _SENTENCES.get(code, _OTHER_DECLINE))
