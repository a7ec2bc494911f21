"""Stripe's errors: which of them decline this payment or refund, and which are defects of ours.

An `invalid_request_error` can be either (https://docs.stripe.com/error-codes). A refusal concerns this
payment alone and is final, and the customer is told. A defect would affect every payment: wrong parameters, a
wrong account, an account that may not charge. It declines nobody; a deployment or the account's owner has to
fix it. An error that is not listed as a defect is a refusal, because Stripe answered and charged nothing.

Other errors (`api_error`, `idempotency_error`, an answer 401, 403, 409 or 429) decide nothing: see `client`.
"""

from typing import Final

import stripe

from events.errors import Postponed

ACCOUNT_DEFECTS: Final = frozenset(
    "account_closed account_country_invalid_address account_invalid api_key_expired country_unsupported "
    "livemode_mismatch not_allowed_on_standard_account payment_method_unactivated "
    "platform_account_required platform_api_key_expired request_blocked secret_key_required "
    "testmode_charges_only tls_version_unsupported url_invalid".split()
)
"""The account or its key can't charge at all, or not in this mode. The account's owner has to fix that."""

PARAMETER_DEFECTS: Final = frozenset(
    "parameter_invalid_empty parameter_invalid_integer parameter_invalid_string_blank "
    "parameter_invalid_string_empty parameter_missing parameter_unknown parameters_exclusive "
    "payment_intent_invalid_parameter resource_missing".split()
)
"""Stripe does not understand the request, or does not have an object that we created."""

ORDER_PARAMETERS: Final = frozenset({"payment_method", "amount", "currency", "description", "shipping"})
"""Parameters whose values come from the order. An error about one of them refuses this payment alone."""
ALWAYS_DEFECTS: Final = frozenset({"parameter_missing", "parameter_unknown", "parameters_exclusive"})

FINAL_REFUNDS: Final = frozenset(
    "charge_already_refunded charge_disputed charge_not_refundable refund_disputed_payment".split()
)
"""Refusals that every other try would meet: the money was refunded, is disputed, or is not refundable."""


class KeyInOtherUse(Postponed):
    """Another version of billing has used this key with other parameters."""


class SavedError(Exception):
    """Stripe has saved an error of its own with the key, and repeats it under this key."""


class RefusedByStripe(Exception):
    """Stripe refuses the request permanently. Its sentence is left out, because it may contain the token."""

    def __init__(self, error: stripe.StripeError) -> None:
        details = error.error
        self.code: str | None = error.code or None
        self.decline_code: str | None = getattr(details, "decline_code", None)
        self.param: str | None = getattr(details, "param", None)
        self.is_card_error = isinstance(error, stripe.CardError)
        self.is_defect = not self.is_card_error and _is_defect(
            error.http_status, self.code, self.param, error.user_message or ""
        )
        super().__init__(
            f"Stripe refuses the request {error.request_id}: {error.http_status} {self.code} ({self.param})."
        )

    @property
    def is_final_for_refund(self) -> bool:
        """Whether every other try of the refund would be refused too, so that a person has to act."""
        return self.code in FINAL_REFUNDS or self.param == "amount"

    @property
    def reason(self) -> str:
        """The most precise code: that of the decline, of the error, or one that the parameter implies."""
        if self.decline_code and self.decline_code != "generic_decline":
            return self.decline_code
        if self.code == "resource_missing" and self.param == "payment_method":
            return "payment_method_unknown"
        if self.code is None and self.param == "currency":
            return "currency_unsupported"
        return self.code or ("card_declined" if self.is_card_error else "payment_refused")


def _is_defect(status: int | None, code: str | None, param: str | None, message: str) -> bool:
    """Whether an `invalid_request_error` is about the form of the request, not about this payment."""
    if code is None:  # 404 for an unknown path, 400 for an unknown API version
        return status == 404 or "api version" in message.lower()
    if code in ACCOUNT_DEFECTS:
        return True
    if code in PARAMETER_DEFECTS:
        of_the_order = (param or "").partition("[")[0] in ORDER_PARAMETERS  # as in shipping[address][line1]
        return not of_the_order or code in ALWAYS_DEFECTS
    return False
