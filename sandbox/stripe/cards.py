"""Stripe's test payment methods, and how a payment with each ends: https://docs.stripe.com/testing."""

from typing import Final

REFUNDS_FAIL: Final = "pm_card_refundFail"
REFUNDS_PEND: Final = "pm_card_pendingRefund"
"""Cards that pay, and whose refunds fail or are pending at first: https://docs.stripe.com/testing#refunds"""

PAYS: Final = frozenset(
    f"pm_card_{brand}"
    for brand in (
        "visa visa_debit mastercard mastercard_debit mastercard_prepaid amex discover diners jcb unionpay "
        "pendingRefund refundFail br mx ca de es fr gb it nl pt pl se ch jp au nz in sg us"
    ).split()
)
"""Cards that pay."""

DECLINES: Final[dict[str, tuple[str, str]]] = {
    "pm_card_chargeDeclined": ("card_declined", "generic_decline"),
    "pm_card_visa_chargeDeclined": ("card_declined", "generic_decline"),
    "pm_card_chargeDeclinedInsufficientFunds": ("card_declined", "insufficient_funds"),
    "pm_card_visa_chargeDeclinedInsufficientFunds": ("card_declined", "insufficient_funds"),
    "pm_card_chargeDeclinedLostCard": ("card_declined", "lost_card"),
    "pm_card_visa_chargeDeclinedLostCard": ("card_declined", "lost_card"),
    "pm_card_chargeDeclinedStolenCard": ("card_declined", "stolen_card"),
    "pm_card_visa_chargeDeclinedStolenCard": ("card_declined", "stolen_card"),
    "pm_card_chargeDeclinedFraudulent": ("card_declined", "fraudulent"),
    "pm_card_chargeDeclinedVelocityLimitExceeded": ("card_declined", "card_velocity_exceeded"),
    "pm_card_visa_chargeDeclinedVelocityLimitExceeded": ("card_declined", "card_velocity_exceeded"),
    "pm_card_chargeDeclinedExpiredCard": ("expired_card", "expired_card"),
    "pm_card_chargeDeclinedIncorrectCvc": ("incorrect_cvc", "incorrect_cvc"),
    "pm_card_chargeDeclinedProcessingError": ("processing_error", "processing_error"),
}
"""Cards that are declined, with error code and decline code: https://docs.stripe.com/declines/codes."""

AUTHENTICATES: Final = frozenset({"pm_card_authenticationRequired", "pm_card_threeDSecure2Required"})
"""Cards whose holder has to authenticate. Off session, where the holder is absent, they are declined."""
AUTHENTICATION_REQUIRED: Final = ("authentication_required", "authentication_required")

KNOWN: Final = PAYS | DECLINES.keys() | AUTHENTICATES
