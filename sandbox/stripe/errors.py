"""Stripe's errors: https://docs.stripe.com/api/errors and https://docs.stripe.com/error-codes."""

from typing import Any

from sandbox.stripe.objects import CardError, Intent


class StripeRefusal(Exception):
    """The request is answered with an error."""

    def __init__(self, status: int, kind: str, message: str, *, executed: bool = False, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.error: dict[str, Any] = {
            "type": kind,
            **{name: value for name, value in more.items() if value is not None},
            "message": message,
        }
        self.executed = executed
        """Whether the endpoint had begun its work. Only then is the answer saved with the idempotency key."""


def invalid(message: str, *, param: str | None = None, code: str | None = None) -> StripeRefusal:
    """The parameters are invalid; the endpoint did nothing."""
    return StripeRefusal(400, "invalid_request_error", message, param=param, code=code)


def missing(kind: str, name: str, param: str, *, status: int = 404) -> StripeRefusal:
    """There is no such object: 404 for the one in the path, 400 for one in the parameters."""
    message = f"No such {kind}: '{name}'"
    return StripeRefusal(status, "invalid_request_error", message, code="resource_missing", param=param)


def unexpected_state(intent: Intent, message: str) -> StripeRefusal:
    """The intent's status does not allow the request."""
    code = "payment_intent_unexpected_state"
    return StripeRefusal(
        400, "invalid_request_error", message, executed=True, code=code, payment_intent=intent
    )


def declined(intent: Intent, error: CardError) -> StripeRefusal:
    """The card was declined: 402."""
    return StripeRefusal(
        402,
        "card_error",
        error.message,
        executed=True,
        code=error.code,
        decline_code=error.decline_code,
        charge=error.charge,
        payment_intent=intent,
    )


def api_error() -> StripeRefusal:
    """An error inside Stripe: 500."""
    return StripeRefusal(500, "api_error", "An unknown error occurred.", executed=True)


def unauthorized() -> StripeRefusal:
    """The API key is missing or wrong: 401."""
    return StripeRefusal(401, "invalid_request_error", "Invalid API Key provided.")


def key_in_use(key: str) -> StripeRefusal:
    """Another request with this key is still under way: 409."""
    message = f"There is currently another in-progress request using this Idempotency Key: {key}."
    return StripeRefusal(409, "invalid_request_error", message, code="idempotency_key_in_use")


def key_reused(key: str) -> StripeRefusal:
    """The key was used with other parameters: 400."""
    message = f"Keys for idempotent requests can only be used with the same parameters; '{key}' was not."
    return StripeRefusal(400, "idempotency_error", message)


def locked() -> StripeRefusal:
    """Another request works on the same object: 429, https://docs.stripe.com/rate-limits#object-lock-timeouts."""
    message = "This object cannot be accessed right now because another request is using it."
    return StripeRefusal(429, "invalid_request_error", message, code="lock_timeout")


def rate_limited() -> StripeRefusal:
    """Too many requests: 429, before the request is read."""
    return StripeRefusal(429, "invalid_request_error", "Request rate limit exceeded.", code="rate_limit")


def unavailable() -> StripeRefusal:
    """Stripe is unavailable: 503."""
    return StripeRefusal(503, "api_error", "The service is unavailable.")
