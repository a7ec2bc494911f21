"""What Stripe's errors mean: a refusal of this payment or refund, or a defect that a deployment mends.

An `invalid_request_error` can be either (https://docs.stripe.com/error-codes). A refusal is about this
payment alone and is final: the customer is told. A defect is about us, so it would meet every payment: wrong
parameters, a wrong account, an account that may not charge. Nobody is declined for it. What is not listed as
a defect is a refusal, because Stripe answered and charged nothing.

Other errors (`api_error`, `idempotency_error`, an answer 401, 403, 409 or 429) decide nothing:
`stripe_provider` puts the work off.
"""

from typing import Final

import stripe

ACCOUNT_DEFECTS: Final = frozenset(
    {
        "account_closed",
        "account_country_invalid_address",
        "account_invalid",
        "api_key_expired",
        "country_unsupported",
        "livemode_mismatch",
        "not_allowed_on_standard_account",
        "payment_method_unactivated",
        "platform_account_required",
        "platform_api_key_expired",
        "request_blocked",
        "secret_key_required",
        "testmode_charges_only",
        "tls_version_unsupported",
        "url_invalid",
    }
)
"""The account or its key can't charge at all, or not in this mode: its owner mends that."""

PARAMETER_DEFECTS: Final = frozenset(
    {
        "parameter_invalid_empty",
        "parameter_invalid_integer",
        "parameter_invalid_string_blank",
        "parameter_invalid_string_empty",
        "parameter_missing",
        "parameter_unknown",
        "parameters_exclusive",
        "payment_intent_invalid_parameter",
        "resource_missing",
    }
)
"""We ask in a way that Stripe does not understand, or for an object that we made and it does not have."""

OF_THE_ORDER: Final = frozenset({"payment_method", "amount", "currency"})
"""Parameters whose values come from the order: where Stripe does not take one, it refuses this payment."""
NEVER_OF_THE_ORDER: Final = frozenset({"parameter_missing", "parameter_unknown", "parameters_exclusive"})

FINAL_REFUNDS: Final = frozenset(
    {
        "charge_already_refunded",
        "charge_disputed",
        "charge_not_refundable",
        "refund_disputed_payment",
    }
)
"""Refusals of a refund that no other try changes: somebody has given the money back, or is about to."""


class RefusedByStripe(Exception):
    """Stripe refuses the request, for good. No sentence of Stripe's is kept: it may hold the token."""

    def __init__(self, error: stripe.StripeError) -> None:
        details = error.error
        self.code: str | None = error.code or None
        self.decline_code: str | None = getattr(details, "decline_code", None)
        self.param: str | None = getattr(details, "param", None)
        self.of_the_card = isinstance(error, stripe.CardError)
        self.is_defect = not self.of_the_card and _is_defect(
            error.http_status, self.code, self.param, error.user_message or ""
        )
        super().__init__(
            f"Stripe refuses the request {error.request_id}: {error.http_status} {self.code} ({self.param})."
        )

    @property
    def ends_the_refund(self) -> bool:
        """Whether no later refund of this charge can be whole, so a person has to look."""
        return self.code in FINAL_REFUNDS or self.param == "amount"

    @property
    def reason(self) -> str:
        """The code that says most: of a decline, its own; without any, what the parameter tells."""
        if self.decline_code and self.decline_code != "generic_decline":
            return self.decline_code
        if self.code == "resource_missing" and self.param == "payment_method":
            return "payment_method_unknown"
        if self.code is None and self.param == "currency":
            return "currency_unsupported"
        return self.code or ("card_declined" if self.of_the_card else "payment_refused")


def _is_defect(status: int | None, code: str | None, param: str | None, message: str) -> bool:
    """Whether an `invalid_request_error` is about how we ask, not about what is asked for."""
    if code is None:  # a path that Stripe does not have is a 404, an API version it does not know a 400
        return status == 404 or "api version" in message.lower()
    if code in ACCOUNT_DEFECTS:
        return True
    if code in PARAMETER_DEFECTS:
        return param not in OF_THE_ORDER or code in NEVER_OF_THE_ORDER
    return False
